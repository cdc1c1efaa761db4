"""The servers that are compared: how each is installed, and started on a port with some workers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[2]
APPS = HERE / "apps"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "preforkd-bench"
PYTHON = str(CACHE / "venv/bin/python")
BIN = CACHE / "venv/bin"

DEBIAN = ["wrk", "nghttp2-client", "apache2-utils", "nginx-light", "libev-dev", "gcc", "python3-dev",
          "python3-venv", "puma", "unicorn", "ruby-rack", "slowhttptest"]  # fmt: skip
PYPI = [
    "bjoern",
    "fastwsgi",
    "granian",
    "gunicorn",
    "uvicorn[standard]",
    "uwsgi",
    "flask",
    "django",
]


def install() -> None:
    """Install what is missing: packages by apt (as root), the rest in a virtual environment."""
    programs = ("wrk", "h2load", "ab", "nginx", "puma", "unicorn", "slowhttptest")
    paths = os.environ.get("PATH", "") + ":/usr/sbin"
    if any(shutil.which(program, path=paths) is None for program in programs):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-q", "update"], check=True, stdout=2)
        subprocess.run(
            ["apt-get", "-q", "install", "-y", "--no-install-recommends", *DEBIAN],
            check=True,
            env=environment,
            stdout=2,
        )
    if not (CACHE / "complete").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        venv = ["-m", "venv", "--system-site-packages", str(CACHE / "venv")]
        subprocess.run(["/usr/bin/python3", *venv], check=True)
        pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *PYPI, "-e", f"{TREE}[asgi]"], check=True, stdout=2)
        (CACHE / "complete").touch()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A running server: its port, and the process that was started."""

    port: int
    process: subprocess.Popen[bytes]
    seen: dict[int, None] = field(default_factory=dict)

    def pids(self) -> list[int]:
        """Return all its processes, those that have lost their parent as well."""
        new = [self.process.pid, *self.seen]
        while new:
            self.seen.update(dict.fromkeys(new))
            new = [child for pid in new for child in _children(pid) if child not in self.seen]
        return list(self.seen)

    def cpu(self) -> float:
        """Return the CPU seconds that its processes have used.

        From the scheduler's own account, in nanoseconds: utime and stime are often counted by
        ticks, which miss what sleeps before each one.
        """
        total = 0
        for pid in self.pids():
            for task in _tasks(pid):
                with suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def pss(self) -> int:
        """Return the memory of all its processes: the sum of their PSS, in bytes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in _tasks(pid):
        with suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


Command = Callable[[int, int, str, Path], list[str]]


def _preforkd(extra: str = "", only: str = "") -> Command:
    """``only`` is the target where it is always the same."""

    def command(port: int, workers: int, target: str, folder: Path) -> list[str]:
        kind = "asgi" if target.endswith(":asgi") else "wsgi"
        target = only or f"{kind}:{target}"
        (folder / "preforkd.yaml").write_text(
            f"app: {{target: '{target}', directory: {APPS}}}\nlisten: 127.0.0.1:{port}\n"
            f"workers: {workers}\ncontrol: {{socket: off}}\n{extra}"
        )
        return [str(BIN / "preforkd"), "run", "--config", str(folder / "preforkd.yaml")]

    return command


def _forking(name: str) -> Command:
    return lambda port, workers, target, _: [
        PYTHON, str(APPS / "forking.py"), name, str(port), str(workers), target,
    ]  # fmt: skip


def _granian(interface: str, websockets: str = "--no-ws") -> Command:
    return lambda port, workers, target, _: [
        str(BIN / "granian"), "--interface", interface, "--port", str(port), "--workers", str(workers),
        websockets, "--log-level", "error", target,
    ]  # fmt: skip


def _gunicorn(*options: str) -> Command:
    return lambda port, workers, target, _: [
        str(BIN / "gunicorn"), "-b", f"127.0.0.1:{port}", "-w", str(workers), "--log-level", "error",
        *options, target,
    ]  # fmt: skip


def _uwsgi(*options: str) -> Command:
    return lambda port, workers, target, _: [
        str(BIN / "uwsgi"), "--master", "--processes", str(workers), "--module", target, "--disable-logging",
        "--listen", "1024", "--need-app", "--die-on-term", *options[:1], f"127.0.0.1:{port}", *options[1:],
    ]  # fmt: skip


def _uvicorn(port: int, workers: int, target: str, _: Path) -> list[str]:
    return [str(BIN / "uvicorn"), "--port", str(port), "--workers", str(workers), "--log-level", "error",
            "--no-access-log", target]  # fmt: skip


def _nginx(port: int, workers: int, _: str, folder: Path) -> list[str]:
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes {workers}; pid {folder}/pid; error_log {folder}/error;\n"
        "events { worker_connections 20000; }\nhttp { access_log off; keepalive_requests 1000000000;\n"
        f"server {{ listen 127.0.0.1:{port} backlog=1024; default_type text/plain;\n"
        'location / { return 200 "Hello, World!"; } } }\n'
    )
    return ["/usr/sbin/nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error")]


def _puma(port: int, workers: int, _: str, __: Path) -> list[str]:
    return ["puma", "-q", "-b", f"tcp://127.0.0.1:{port}", "-w", str(workers), "-t", "5:5", "-e", "production",
            str(APPS / "config.ru")]  # fmt: skip


def _unicorn(port: int, workers: int, _: str, folder: Path) -> list[str]:
    (folder / "unicorn.rb").write_text(
        f"worker_processes {workers}\nlisten '127.0.0.1:{port}', backlog: 1024\nlogger Logger.new(nil)\n"
    )
    return ["unicorn", "-E", "none", "-c", str(folder / "unicorn.rb"), str(APPS / "config.ru")]


def _greeter(interpreter: str, script: str) -> Command:
    return lambda port, workers, _, __: [
        interpreter, str(APPS / script), str(port), str(workers),
    ]  # fmt: skip


def compiled(source: str, folder: Path) -> Path:
    """Compile a program of one file and return where it is."""
    program = folder / source.removesuffix(".c")
    subprocess.run(["gcc", "-O2", "-o", str(program), str(APPS / source)], check=True)
    return program


JOURNAL = "access_log: {target: journal}\n"
PEERS: dict[str, Command] = {
    "preforkd": _preforkd(),
    "preforkd, demo": _preforkd(only="stream:preforkd.apps.demo:greet"),
    "preforkd, patient": _preforkd("http: {keep_alive: 10min, header_timeout: 10min}\n"),
    "preforkd, no slot": _preforkd(only="wsgi:hello_without_slot:wsgi"),
    "preforkd, access log to the journal": _preforkd(JOURNAL),
    "bjoern": _forking("bjoern"),
    "fastwsgi": _forking("fastwsgi"),
    "granian": _granian("wsgi"),
    "granian, ASGI": _granian("asginl"),
    "granian, WebSocket": _granian("asgi", "--ws"),
    "uWSGI http11-socket": _uwsgi("--http11-socket"),
    "uWSGI http router": _uwsgi("--http", "--http-keepalive"),
    "gunicorn gthread": _gunicorn("-k", "gthread", "--threads", "4"),
    "gunicorn sync": _gunicorn(),
    "uvicorn": _uvicorn,
    "nginx, static": _nginx,
    "puma 5:5": _puma,
    "unicorn": _unicorn,
    "C": lambda port, workers, _, folder: [
        str(compiled("greet.c", folder)),
        str(port),
        str(workers),
    ],
    "Python, accept loop": _greeter(PYTHON, "greet.py"),
    "Python, socketserver": _greeter(PYTHON, "greet_socketserver.py"),
    "Ruby": _greeter("ruby", "greet.rb"),
    "Perl": _greeter("perl", "greet.pl"),
}


@contextmanager
def running(
    name: str, target: str, workers: int, folder: Path, *, http: bool = True
) -> Iterator[Server]:
    """Start a server and wait until it answers; end it, and all that it started, afterwards."""
    with started(name, PEERS[name], target, workers, folder, http=http) as server:
        yield server


@contextmanager
def started(
    name: str, command_of: Command, target: str, workers: int, folder: Path, *, http: bool = True
) -> Iterator[Server]:
    """Do as `running` does with a server that is not among `PEERS`."""
    port = free_port()
    folder = folder / f"{name.replace(' ', '-')}-{port}"
    folder.mkdir()
    command = command_of(port, workers, target, folder)
    environment = {**os.environ, "PYTHONPATH": str(APPS)}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=APPS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    server = Server(port, process)
    try:
        _wait_until_it_answers(server, folder, http)
        server.pids()
        yield server
    finally:
        pids = server.pids()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in pids[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _wait_until_it_answers(server: Server, folder: Path, http: bool) -> None:
    request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" if http else b""
    expected = b"HTTP/1.1 200" if http else b"Hello"

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            sys.exit(f"{folder.name} ended: {(folder / 'output').read_text()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
                sock.sendall(request)
                if sock.recv(100).startswith(expected):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit(f"{folder.name} does not answer: {(folder / 'output').read_text()[-2000:]}")
