"""The requests that the application runs: counted in the slot, listed in logs and with the stacks."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from preforkd.ipc.slots import SlotWriter
from preforkd.worker.listener_context import CachedHead

_MAX_DEPTH = 100
"""Awaited calls of one task that are listed."""


class RunningRequest(Protocol):
    """A request that the application runs."""

    cached: CachedHead
    task: "asyncio.Task[None]"

    def end_of_input(self) -> None:
        """Let the application receive http.disconnect."""

    def answer_overdue(self) -> None:
        """Answer that the request took too long."""


class RequestTracker:
    """The running requests; the slot shows the oldest, as that is the first to be overdue."""

    def __init__(self, slot_writer: SlotWriter) -> None:
        self._slot_writer = slot_writer
        self._running: dict[RunningRequest, int] = {}
        """The start of each request, monotonic in ns, the oldest first."""
        self._shown: CachedHead | None = None
        """The head whose request line the slot shows."""

    def running(self) -> list[RunningRequest]:
        """Return the running requests, the oldest first."""
        return list(self._running)

    def begin(self, request: RunningRequest) -> int:
        """Count a request that begins; return its start, monotonic in ns."""
        since = time.monotonic_ns()
        self._running[request] = since
        if len(self._running) == 1:
            self._show(request, since)
        return since

    def end(self, request: RunningRequest) -> None:
        """Count a request that has ended."""
        del self._running[request]
        self.count()

    def count(self) -> None:
        """Count the end of a request or a WebSocket; the latter may last for days and is never overdue."""
        self._slot_writer.request_done()
        for request, since in self._running.items():
            self._show(request, since)
            break

    def _show(self, request: RunningRequest, since: int) -> None:
        if request.cached is not self._shown:
            self._shown = request.cached
            self._slot_writer.set_request_line(request.cached.line)
        self._slot_writer.set_busy(since)


def described(request: RunningRequest) -> str:
    """Return method and path of a request, for the log."""
    head = request.cached.head
    return f"{head.method} {head.target.decode('latin-1')!r}"


def describe_loop(loop: asyncio.AbstractEventLoop, tracker: RequestTracker) -> Iterator[str]:
    """Yield lines about each running request and each task with its stack."""
    for request in tracker.running():
        yield f"Request {described(request)}\n"
    yield from describe_tasks(asyncio.all_tasks(loop))


def describe_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> Iterator[str]:
    """Yield lines with the stack of each task."""
    for task in tasks:
        yield f"Task {task.get_name()} (most recent call first):\n"
        yield from reversed(list(_awaits(task.get_coro())))


def _awaits(coroutine: Any) -> Iterator[str]:
    # A waiting task has no frames on a stack, only this chain from the outermost call to the innermost.
    for _ in range(_MAX_DEPTH):
        kind = next((one for one in ("cr", "gi") if hasattr(coroutine, f"{one}_frame")), None)
        if kind is None:
            return
        frame, code = getattr(coroutine, f"{kind}_frame"), getattr(coroutine, f"{kind}_code")
        line = frame.f_lineno if frame is not None else code.co_firstlineno
        yield f'  File "{code.co_filename}", line {line} in {code.co_name}\n'
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
