"""A slot's memory: one small page that a worker writes and the master reads, without a system call.

All fields are unsigned 64-bit words.  The master uses what it reads for display and for decisions
about that worker only; there is no pid, index or length among the fields.  The one word that the
master writes is the bell: it asks to be told, once, when the worker becomes busy, so that nothing
needs to be polled while nothing happens.
"""

import fcntl
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

SIZE = 4096
_WORDS = 16


class _Word(IntEnum):
    BUSY_SINCE = 0
    REQUESTS = 1
    CONNECTIONS = 2
    ACCEPTED = 3
    BELL = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """What a worker said of itself: counts since its start, and monotonic seconds."""

    busy_since: float | None
    requests: int
    connections: int
    accepted: int


def create(name: str) -> int:
    """Return a new memory descriptor for a slot, close-on-exec. Raises OSError.

    Its size is sealed: a worker that could shrink it would end the master by SIGBUS.
    memfd_create(2)
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SIZE)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


class _Page:
    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE, mmap.MAP_SHARED)
        self._words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Give the mapping back."""
        self._words.release()
        self._map.close()


class SlotReader(_Page):
    """The master's side."""

    def read(self, now: float) -> Reading:
        """Return what the worker said; ``now`` (monotonic seconds) bounds what can be believed."""
        words = self._words
        since = words[_Word.BUSY_SINCE] / 1e9
        return Reading(
            busy_since=since if 0 < since <= now else None,
            requests=words[_Word.REQUESTS],
            connections=words[_Word.CONNECTIONS],
            accepted=words[_Word.ACCEPTED],
        )

    def arm(self) -> None:
        """Ask to be told when the worker next becomes busy."""
        self._words[_Word.BELL] = 1


class SlotWriter(_Page):
    """The worker's side; ``ring`` is called when the master asked to know of it."""

    def __init__(self, descriptor: int, ring: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self._ring = ring

    def busy(self, since: int = 0) -> None:
        """Say that the application begins with a request or a connection, or since when it is busy.

        ``since`` is in monotonic nanoseconds; 0 is now.
        """
        words = self._words
        words[0] = since or time.monotonic_ns()
        if words[8]:
            words[8] = 0
            self._ring()

    def idle(self) -> None:
        """Say that the application has ended; counts one request."""
        words = self._words
        words[0] = 0
        words[1] += 1

    def connections(self, count: int) -> None:
        """Say how many connections are open."""
        self._words[2] = count

    def accepted(self) -> None:
        """Count one accepted connection."""
        self._words[3] += 1
