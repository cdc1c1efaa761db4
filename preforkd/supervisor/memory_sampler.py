"""Read how much memory processes use, in a thread.

Reading one process takes the kernel milliseconds, and there may be hundreds. So a thread reads them, one batch
at a time and only on request; a request for what was read within the last second gets the same values.
"""

import os
from collections.abc import Callable, Collection

import msgspec

from preforkd.background import run_in_thread
from preforkd.linux import memory
from preforkd.linux.memory import Usage
from preforkd.loop import Loop

FRESH = 1.0
"""Seconds for which a reading is reused."""
_MANY = 4096
"""Number of first readings above which those of processes that have exited are removed."""

Reading = Usage | OSError
"""ProcessLookupError for a process that has ended, PermissionError for another user's."""


class _Request(msgspec.Struct, frozen=True):
    pids: frozenset[int]
    callback: Callable[[dict[int, Reading]], None]
    first: bool = False
    """It is the first reading of a new process, which is not reused: the process still grows."""


class MemorySampler:
    """See the module."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._requests: list[_Request] = []
        self._busy = False
        self._latest: dict[int, tuple[float, Reading]] = {}
        self._first: dict[int, int] = {}

    def read(self, pids: Collection[int], callback: Callable[[dict[int, Reading]], None]) -> None:
        """Call ``callback`` with the memory of these processes: at once if all are known, else later."""
        latest = self._fresh()
        known = {pid: latest[pid][1] for pid in pids if pid in latest}
        unknown = frozenset(pids) - known.keys()
        if unknown:
            self._submit(_Request(unknown, lambda readings: callback(known | readings)))
        else:
            callback(known)

    def watch(self, pid: int) -> None:
        """Take the first reading of a new process, from which its growth is computed."""
        self._submit(_Request(frozenset({pid}), self._begin, first=True))

    def growth(self, pid: int, usage: Usage) -> int | None:
        """Return by how many private bytes a process has grown since its first reading; None if unknown."""
        first = self._first.get(pid)
        return None if first is None else usage.private - first

    def _fresh(self) -> dict[int, tuple[float, Reading]]:
        now = self._loop.time()
        return {pid: entry for pid, entry in self._latest.items() if now - entry[0] <= FRESH}

    def _submit(self, request: _Request) -> None:
        self._requests.append(request)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        requests, self._requests = self._requests, []
        self._busy = bool(requests)
        if requests:
            pids = frozenset().union(*(request.pids for request in requests))
            run_in_thread(
                self._loop,
                "memory",
                lambda: {pid: _read(pid) for pid in pids},
                lambda readings: self._done(requests, readings()),
            )

    def _done(self, requests: list[_Request], readings: dict[int, Reading]) -> None:
        now = self._loop.time()
        self._latest = self._fresh()
        for request in requests:
            answer = {pid: readings[pid] for pid in request.pids}
            if not request.first:
                self._latest |= {pid: (now, reading) for pid, reading in answer.items()}
            request.callback(answer)
        self._next()

    def _begin(self, readings: dict[int, Reading]) -> None:
        for pid, reading in readings.items():
            if isinstance(reading, Usage):
                self._first[pid] = reading.private
        if len(self._first) > _MANY:
            self._first = {
                pid: first for pid, first in self._first.items() if os.path.exists(f"/proc/{pid}")
            }


def _read(pid: int) -> Reading:
    try:
        return memory.usage(pid)
    except OSError as error:
        return error
