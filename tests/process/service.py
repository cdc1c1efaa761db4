"""A preforkd that tests run: started as a program, watched over a notify socket of the test's own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Manager:
    """What a service manager hears on $NOTIFY_SOCKET, in order; read as it comes, as systemd does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, str]] = []
        self._seen = 0
        self._heard = threading.Condition()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while data := self._sock.recv(65536):
            message = dict(line.split("=", 1) for line in data.decode().split("\n") if line)
            with self._heard:
                self.messages.append(message)
                self._heard.notify_all()

    def listen(self, timeout: float) -> dict[str, str] | None:
        """Return the next message that was not returned yet."""
        with self._heard:
            if not self._heard.wait_for(lambda: len(self.messages) > self._seen, timeout):
                return None
            self._seen += 1
            return self.messages[self._seen - 1]

    def wait_for(self, name: str, value: str | None = None, timeout: float = PATIENCE) -> dict:
        """Return the next message that has this field (and value)."""
        deadline = time.monotonic() + timeout
        while (rest := deadline - time.monotonic()) > 0:
            message = self.listen(rest)
            if message and name in message and value in {None, message[name]}:
                return message
        raise AssertionError(f"the service did not say {name}={value}; it said {self.messages}")

    def forget(self) -> None:
        """Forget what was said so far."""
        with self._heard:
            del self.messages[:]
            self._seen = 0

    def close(self) -> None:
        self._sock.sendto(b"", str(self.path))
        self._reader.join()
        self._sock.close()


class Service:
    """One preforkd; ``environ`` is added to its environment, ``command`` goes before its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manager = Manager(folder / "notify")
        self.config = folder / "preforkd.yaml"
        self.log_path = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *arguments: str,
        environ: dict[str, str] | None = None,
        command: tuple[str, ...] = (),
        ready: bool = True,
        notify: bool = True,
        start_new_session: bool = False,
    ) -> Service:
        variables = {**os.environ, "RUNTIME_DIRECTORY": str(self.folder), **(environ or {})}
        if notify:
            variables["NOTIFY_SOCKET"] = str(self.manager.path)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, sys.executable, "-m", "preforkd", "run", *arguments],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=start_new_session,
            )
        if ready:
            try:
                self.manager.wait_for("READY", "1")
            except AssertionError as error:
                raise AssertionError(f"not ready; its log:\n{self.log}") from error
        return self

    def configure(self, text: str) -> Path:
        self.config.write_text(text)
        return self.config

    def serve(self, module: str, code: str, settings: str, target: str) -> tuple[str, int]:
        """Start with a module of this code, and these settings; return the address."""
        (self.folder / f"{module}.py").write_text(code)
        port = free_port()
        self.configure(
            f"app: {{target: '{target}', directory: {self.folder}}}\n"
            f"listen: 127.0.0.1:{port}\n{settings}\n"
        )
        self.start("--config", str(self.config))
        return "127.0.0.1", port

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "preforkd.cli.preforkctl", *arguments],
            env={**os.environ, "RUNTIME_DIRECTORY": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def status(self) -> dict:
        answer = self.control("status", "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def workers(self) -> list[int]:
        return [row["pid"] for row in self.status()["workers"] if row["state"] == "ready"]

    def zygote(self) -> int:
        return self.status()["generations"][-1]["zygote_pid"]

    def until(self, holds, timeout: float = PATIENCE) -> dict:
        """Return the first status for which this holds, looking again at each word of the service."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = self.status()
            if holds(status):
                return status
            self.manager.listen(0.2)
        raise AssertionError(f"never came true; last: {status}\n{self.log}")

    def wait(self, timeout: float = PATIENCE) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.manager.path.exists():
            self.manager.close()


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, listing.read_text().split())
    return found


def wait_until_gone(pids: list[int], timeout: float = PATIENCE) -> None:
    """Return when none of these processes lives."""
    import select

    poll = select.poll()
    waiting = {}
    for pid in pids:
        try:
            waiting[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout
    while waiting:
        events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            raise AssertionError(f"still alive: {list(waiting.values())}")
        for descriptor, _ in events:
            poll.unregister(descriptor)
            os.close(descriptor)
            del waiting[descriptor]


def ask(address, path="/?id=1", family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(30)
        sock.connect(address)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        return answer


def read_all(address, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(30)
        sock.connect(address)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        return answer
