"""A preforkd that tests run: started as a program, watched over a notify socket of the test's own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0


_ports = itertools.cycle(range(12000 + os.getpid() % 200 * 100, 12100 + os.getpid() % 200 * 100))
"""A hundred of this process, below those that clients' sockets get: Linux's ip_local_port_range."""


def free_port() -> int:
    """Return a port that is free, and that no test beside this one gets before a service binds it."""
    for port in _ports:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def exceptions(log: str, folder: Path) -> list[str]:
    """Return the tracebacks in a log that are no deed of a test's application, each with its record.

    They went through no line below ``tests`` or ``folder``, or preforkd itself calls them unexpected.
    """
    own = tuple(f'File "{place}/' for place in (HERE.parent, folder))
    records = re.findall(r"^(?!\s).*\n(?:\s.*\n)*", log + "\n", re.MULTILINE)
    found = []
    for record, after in itertools.pairwise([*records, ""]):
        if "Traceback (most recent call last)" not in record:
            continue
        unexpected = re.search("internal error|exception in |Exception ignored", record)
        if unexpected or not any(place in record for place in own):
            last = after if record.startswith("Traceback") else ""  # the exception is not indented
            found.append(record + last)
    return found


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

    def finish(self, item: pytest.Item) -> None:
        """Close; demand that the log has no exception but those that a mark ``logs`` of the test names."""
        self.close()
        expected = [text for mark in item.iter_markers("logs") for text in mark.args]
        log = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        unexpected = [
            found
            for found in exceptions(log, self.folder)
            if not any(re.search(pattern, found) for pattern in expected)
        ]
        assert not unexpected, "in the log, and no mark `logs` names it:\n" + "\n".join(unexpected)

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
