"""The gauge: how much memory processes have, read beside the loop.

Reading one process takes the kernel milliseconds, and there may be hundreds; so a thread does it, one
at a time and only when somebody asks, and who asks again at once gets the same answer.
"""

import asyncio
import os
from collections.abc import Collection
from dataclasses import dataclass

from preforkd.linux import memory
from preforkd.linux.memory import Usage
from preforkd.supervisor.beside import beside

FRESH = 1.0
"""Seconds for which a reading is given to others too."""
_MANY = 4096
"""First readings, after which those of processes that have ended are forgotten."""

Reading = Usage | OSError
"""ProcessLookupError for a process that has ended, PermissionError for another user's."""


@dataclass(frozen=True, slots=True)
class _Question:
    pids: frozenset[int]
    answer: asyncio.Future[None] | None
    """None: the first reading of processes that have just begun."""


class Gauge:
    """See the module; of one loop."""

    def __init__(self) -> None:
        self._questions: list[_Question] = []
        self._busy = False
        self._latest: dict[int, tuple[float, Reading]] = {}
        self._first: dict[int, int] = {}

    async def read(self, pids: Collection[int]) -> dict[int, Reading]:
        """Return the memory of these processes."""
        loop = asyncio.get_running_loop()
        old = self._old(pids, loop.time())
        if old:
            answer: asyncio.Future[None] = loop.create_future()
            self._ask(loop, _Question(old, answer))
            await answer
        return {pid: self._latest[pid][1] for pid in pids}

    def watch(self, pid: int) -> None:
        """Take a first reading of a process that has just begun, so that its growth is known."""
        self._ask(asyncio.get_running_loop(), _Question(frozenset({pid}), None))

    def growth(self, pid: int, usage: Usage) -> int | None:
        """Return the bytes that a process has to itself beyond its first reading; None if unknown."""
        first = self._first.get(pid)
        return None if first is None else usage.private - first

    def _old(self, pids: Collection[int], now: float) -> frozenset[int]:
        latest = self._latest
        return frozenset(pid for pid in pids if pid not in latest or now - latest[pid][0] > FRESH)

    def _ask(self, loop: asyncio.AbstractEventLoop, question: _Question) -> None:
        self._questions.append(question)
        if not self._busy:
            self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        questions, self._questions = self._questions, []
        self._busy = bool(questions)
        if questions:
            pids = frozenset().union(*(question.pids for question in questions))
            beside(
                loop,
                "gauge",
                lambda: {pid: _read(pid) for pid in pids},
                lambda readings: self._done(loop, questions, readings()),
            )

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        questions: list[_Question],
        readings: dict[int, Reading],
    ) -> None:
        now = loop.time()
        kept = {pid: entry for pid, entry in self._latest.items() if now - entry[0] <= FRESH}
        self._latest = kept
        for question in questions:
            answered = {pid: readings[pid] for pid in question.pids}
            if question.answer is None:
                self._begin(answered)
                continue
            self._latest |= {pid: (now, reading) for pid, reading in answered.items()}
            if not question.answer.done():
                question.answer.set_result(None)
        self._next(loop)

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
