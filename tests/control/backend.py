"""A master that only answers, and a control socket in front of it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from contextlib import contextmanager

from preforkd.control.records import (
    GenerationStatus,
    ListenerStatus,
    MemoryStatus,
    ProcessMemory,
    ReloadAnswer,
    ReloadStatus,
    ServiceStatus,
    WorkerStatus,
)
from preforkd.control.server import ControlServer
from preforkd.loop import Loop

VIEW = ServiceStatus(
    version="1.2",
    pid=77,
    state="serving",
    status="2 of 2 workers ready, 1 busy, generation 3",
    generation=3,
    ready=2,
    target=2,
    least=2,
    most=8,
    by_hand=False,
    busy=1,
    waiting=0,
    uptime_seconds=93784.0,
    configuration="/etc/preforkd.yaml",
    problems=["only 1 of 2 workers serve since 14:03:12; 1 is starting"],
    workers=[
        WorkerStatus(1, 101, 3, "ready", True, 2.34, 10401, 12, 40, 18420.0, "GET /a", ""),
        WorkerStatus(2, None, 3, "forking", False, None, 0, 0, 0, 0.1, "", ""),
    ],
    generations=[GenerationStatus(3, "current", 100, "ready", 2)],
    listeners=[
        ListenerStatus("http", "[::]:80", "systemd"),
        ListenerStatus("unix:/x", "unix:/x", "bound"),
    ],
    last_reload=ReloadStatus(None, False, "it broke", "application", "", "", 0.0),
)
MEMORY = MemoryStatus(
    processes=[
        ProcessMemory("worker", 1, 3, 101, 100 << 20, 30 << 20, 9437184, 91 << 20, 1 << 20),
        ProcessMemory("zygote", None, 3, 100, 95 << 20, 20 << 20, 1 << 20, 94 << 20, None),
        ProcessMemory("master", None, None, 77, 28 << 20, 16 << 20, 11 << 20, 17 << 20, None),
    ],
    pss=66 << 20,
    unrelated=120 << 20,
    problems=["worker 102: Permission denied"],
)
GOOD = ReloadAnswer(True, 4, "generation 4 is serving", None, "", "", ["workers"], ["log.target"])
BAD = ReloadAnswer(False, None, "it broke", "application", "Traceback", "mend it", [], [])


class Backend:
    """What a master is to the control socket."""

    def __init__(self) -> None:
        self.answer = GOOD
        self.stopped: list[bool] = []
        self.reforked = "zygote 4 was forked from a worker"
        self.waiting: list | None = None
        """Those who wait for a reload; None: nobody has to."""

    def status(self) -> ServiceStatus:
        return VIEW

    def memory(self, tell) -> None:
        tell(MEMORY)

    def reload(self, tell, *, fresh: bool) -> None:
        self.fresh = fresh
        if self.waiting is None:
            tell(self.answer)
        else:
            self.waiting.append(tell)

    def release(self) -> None:
        """End the reload for which they wait."""
        for tell in self.waiting:
            tell(self.answer)

    def stop(self, *, quick: bool) -> None:
        self.stopped.append(quick)

    def refork(self, tell) -> None:
        tell(self.reforked)

    def scale(self, size: int | None) -> int:
        self.scaled = size
        return 5

    def scale_by(self, step: int) -> int:
        self.scaled = f"by {step}"
        return 5


@contextmanager
def serving(path):
    """A control socket in a loop of its own, with a backend to look at."""
    backend, loop = Backend(), Loop()
    server = ControlServer(loop, backend, "")
    server.start(str(path), 0o666)
    thread = threading.Thread(target=loop.run)
    thread.start()
    backend.call = loop.call_soon_threadsafe
    backend.server = server
    try:
        yield backend
    finally:
        loop.call_soon_threadsafe(server.close, loop.stop)
        thread.join(10)
        assert not thread.is_alive()
        loop.close()


def stuck_socket():
    """A TCP socket whose last close waits for an hour, and the peer on whom it waits."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        stuck = socket.socket()
        stuck.connect(listener.getsockname())
        peer, _ = listener.accept()
    stuck.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while stuck.send(b"x" * 65536):
            pass
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    return stuck, peer
