"""How each server is started with one of the applications."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
APPS = TREE / "tests/bench/apps"
TARGETS = {
    "hello": "hello:application",
    "data": "data:application",
    "django_site": "django_site.wsgi:application",
}
WARM_UP = {
    "hello": ["/"],
    "data": ["/record?n=1", "/window?n=1", "/mean?n=1", "/groups?n=1"],
    "django_site": ["/?n=1", "/record?n=1", "/group?n=1", "/order?n=1", "/admin/login/"],
}
UNRELATED = "unrelated processes"
MEASURED_UNRELATED = 2
"""As many unrelated processes are measured; for more they are multiplied."""

PREFORKD = {
    "preforkd": "",
    "preforkd, warm-up": "warm",
    "preforkd, warm-up, refork": "warm refork",
    "preforkd, warm-up, immortal": "warm immortal",
    "preforkd, warm-up, immortal, refork": "warm immortal refork",
}
REFORKING = {server for server, settings in PREFORKD.items() if "refork" in settings}
SERVERS = [
    UNRELATED,
    "gunicorn",
    "gunicorn --preload",
    "gunicorn --preload, gc.freeze",
    "uWSGI",
    *PREFORKD,
]
REFUSES = {69, 71, 78}
"""Exit statuses of a preforkd that cannot do what its settings ask for."""
FREEZING = """\
import gc
def when_ready(server):
    gc.collect()
    gc.freeze()
"""


class Skipped(Exception):
    """A server cannot be measured here; the argument says why."""


@dataclass(frozen=True)
class Case:
    """What is measured, with which interpreter; the folder is for its files."""

    server: str
    application: str
    workers: int
    python: Path
    folder: Path


@dataclass(frozen=True)
class Running:
    """A started server: its first processes and its ports, with the log for what goes wrong."""

    roots: list[int]
    ports: list[int]
    log: Path


@contextlib.contextmanager
def started(case: Case, pause: float) -> Iterator[Running]:
    """Run a server. Raises Skipped when its settings are not known there, or cannot be."""
    ports = [_free_port() for _ in range(MEASURED_UNRELATED if case.server == UNRELATED else 1)]
    log = case.folder / "log"
    commands = [_command(case, port) for port in ports]
    variables = {
        **os.environ,
        "BENCH_PAUSE": str(pause),
        "PYTHONPATH": str(APPS),
        "RUNTIME_DIRECTORY": str(case.folder),
    }
    variables.pop("NOTIFY_SOCKET", None)
    # As where a package was installed: nobody compiles anything at the start.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    with log.open("wb") as output:
        processes = [
            subprocess.Popen(
                command,
                cwd=APPS,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            for command in commands
        ]
    try:
        yield Running([process.pid for process in processes], ports, log)
    except AssertionError as error:
        if case.server in PREFORKD and processes[0].poll() in REFUSES:
            why = next(line for line in log.read_text().splitlines() if "critical: " in line)
            raise Skipped(why.rpartition("critical: ")[2].rpartition(".yaml:")[2]) from error
        raise AssertionError(f"{error}\n{log.read_text()[-3000:]}") from error
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT if case.server == "uWSGI" else signal.SIGTERM)
        for process in processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                # All of the session that we have made: the server and its workers.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _command(case: Case, port: int) -> list[str]:
    if case.server in PREFORKD:
        return _preforkd(case, port)
    if case.server == "uWSGI":
        return [
            *("uwsgi", "--plugin", "python3", "--virtualenv", str(case.python.parent.parent)),
            *("--chdir", str(APPS), "--module", TARGETS[case.application], "--need-app"),
            *("--http-socket", f"127.0.0.1:{port}", "--listen", "100"),
            *("--master", "--processes", str(case.workers), "--disable-logging"),
        ]
    options = ["--bind", f"127.0.0.1:{port}", "--timeout", "300", "--worker-tmp-dir", "/dev/shm"]
    options += ["--workers", "1" if case.server == UNRELATED else str(case.workers)]
    if "--preload" in case.server:
        options.append("--preload")
    if "freeze" in case.server:
        (case.folder / "freeze.py").write_text(FREEZING)
        options += ["--config", str(case.folder / "freeze.py")]
    return [str(case.python), "-m", "gunicorn", *options, TARGETS[case.application]]


def _preforkd(case: Case, port: int) -> list[str]:
    wanted = PREFORKD[case.server].split()
    lines = [
        "app:",
        f"  target: wsgi:{TARGETS[case.application]}",
        f"  directory: {APPS}",
        f"listen: 127.0.0.1:{port}",
        f"workers: {case.workers}",
    ]
    if "warm" in wanted:
        lines.insert(3, f"  warm_up: {WARM_UP[case.application]}".replace("'", '"'))
    memory = {"immortal": "  immortal: true", "refork": "  refork: {after: 250}"}
    if chosen := [line for name, line in memory.items() if name in wanted]:
        lines += ["memory:", *chosen]
    config = case.folder / "preforkd.yaml"
    config.write_text("\n".join(lines) + "\n")
    program = [str(case.python), "-m", "preforkd"]
    checked = subprocess.run(
        [*program, "check", str(config)], capture_output=True, text=True, cwd=case.folder
    )
    if checked.returncode != 0:
        reason = (checked.stderr + checked.stdout).split("\n")[0]
        raise Skipped(reason.rpartition(f"{config}:")[2])
    return [*program, "run", "--config", str(config)]
