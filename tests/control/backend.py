"""A master that only answers, and a control socket in front of it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

from preforkd.control.server import ControlServer
from preforkd.control.view import (
    GenerationView,
    ListenerView,
    MemoryView,
    ProcessMemory,
    ReloadAnswer,
    ReloadView,
    ServiceView,
    WorkerView,
)

VIEW = ServiceView(
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
    problems=["only 1 of 2 workers serve, since 14:03:12; 1 is starting"],
    workers=[
        WorkerView(1, 101, 3, "ready", True, 2.34, 10401, 12, 40, 18420.0, "GET /a", ""),
        WorkerView(2, None, 3, "forking", False, None, 0, 0, 0, 0.1, "", ""),
    ],
    generations=[GenerationView(3, "current", 100, "ready", 2)],
    listeners=[
        ListenerView("http", "[::]:80", "systemd"),
        ListenerView("unix:/x", "unix:/x", "bound"),
    ],
    last_reload=ReloadView(None, False, "it broke", "application", "", "", 0.0),
)
MEMORY = MemoryView(
    processes=[
        ProcessMemory("worker", 1, 3, 101, 100 << 20, 30 << 20, 9437184, 91 << 20, 1 << 20),
        ProcessMemory("zygote", None, 3, 100, 95 << 20, 20 << 20, 1 << 20, 94 << 20, None),
        ProcessMemory("master", None, None, 77, 28 << 20, 16 << 20, 11 << 20, 17 << 20, None),
    ],
    pss=66 << 20,
    unrelated=120 << 20,
    problems=["worker 102: Permission denied"],
)
GOOD = ReloadAnswer(True, 4, "generation 4 serves", None, "", "", ["workers"], ["log.target"])
BAD = ReloadAnswer(False, None, "it broke", "application", "Traceback", "mend it", [], [])


class Backend:
    """What a master is to the control socket."""

    def __init__(self) -> None:
        self.answer = GOOD
        self.stopped: list[bool] = []
        self.release: asyncio.Event | None = None

    def view(self) -> ServiceView:
        return VIEW

    async def memory(self) -> MemoryView:
        return MEMORY

    async def reload(self, fresh: bool) -> ReloadAnswer:
        self.fresh = fresh
        if self.release is not None:
            await self.release.wait()
        return self.answer

    def stop(self, quick: bool) -> None:
        self.stopped.append(quick)

    async def refork(self) -> str:
        return "zygote 4 was forked from a worker"

    def scale(self, size: int | None, by: int) -> int:
        self.scaled = (size, by)
        return 5


@contextmanager
def serving(path):
    """A control socket in a loop of its own, with a backend to look at."""
    backend = Backend()
    started, loops = threading.Event(), []
    stop = asyncio.Event()

    async def live():
        server = ControlServer(backend, "")
        await server.start(str(path))
        loops.append(asyncio.get_running_loop())
        started.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    assert started.wait(10)
    backend.call = loops[0].call_soon_threadsafe
    try:
        yield backend
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()
