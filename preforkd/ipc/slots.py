"""A slot's memory: one small page that a worker writes and the master reads, without a system call.

All fields are unsigned 64-bit words.  The master uses what it reads for display and for decisions
about that worker only; there is no pid, index or length among the fields.  The one word that the
master writes is the bell: it asks to be told, once, when the worker becomes busy, so that nothing
needs to be polled while nothing happens.

Beside the words there is a line of text, what the worker is busy with. Behind the page there is room for
the worker's stacks, which it writes when the master asks by a signal: the file's position, which both
sides share, is where they begin, and the size is sealed, so that no worker writes without end.
"""

import contextlib
import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterator
from enum import IntEnum

from msgspec import Struct

SIZE = 4096
STACKS = 64 * 1024
"""Bytes for the stacks, behind the page."""
LINE = 256
"""Bytes of the line: what does not fill it is followed by NULs."""
_LINE_AT = 1024
_WORDS = 16
_NO_LINE = bytes(LINE)


class _Word(IntEnum):
    BUSY_SINCE = 0
    REQUESTS = 1
    CONNECTIONS = 2
    ACCEPTED = 3
    BEATS = 4
    BELL = 8


class SlotState(Struct, frozen=True):
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
    os.ftruncate(descriptor, SIZE + STACKS)
    os.lseek(descriptor, SIZE, os.SEEK_SET)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def as_line(text: bytes) -> bytes:
    """Return a text as `SlotWriter.show` takes it: cut, or filled up."""
    return text[:LINE].ljust(LINE, b"\0")


class _Page:
    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE, mmap.MAP_SHARED)
        self._view = memoryview(self._map)
        self._words = self._view.cast("Q")
        self._line = self._view[_LINE_AT : _LINE_AT + LINE]

    def since(self) -> int:
        """Return when the worker became busy with what it is busy with, as it says; 0: it is idle."""
        return self._words[_Word.BUSY_SINCE]

    def close(self) -> None:
        """Give the mapping back."""
        for view in (self._line, self._words, self._view):
            view.release()
        self._map.close()


class SlotReader(_Page):
    """The master's side; the descriptor is its own from now on."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Give the mapping and the descriptor back."""
        super().close()
        os.close(self._descriptor)

    def line(self) -> str:
        """Return what the worker says it is busy with, as printable text."""
        text = bytes(self._line).partition(b"\0")[0].decode("latin-1")
        return "".join(letter if letter.isprintable() else "?" for letter in text)

    def expect_stacks(self) -> None:
        """Have what the worker writes from now on be found by `stacks`."""
        os.lseek(self._descriptor, SIZE, os.SEEK_SET)

    def stacks(self) -> str:
        """Return what the worker has written since `expect_stacks`."""
        return self._written().replace(b"\0", b"").decode("utf-8", "replace")

    def has_all_stacks(self) -> bool:
        """Tell whether the worker has written all of them, as it says by a final NUL."""
        return self._written().endswith(b"\0")

    def _written(self) -> bytes:
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        size = min(max(0, end - SIZE), STACKS)
        return os.pread(self._descriptor, size, SIZE)

    def read(self, now: float) -> SlotState:
        """Return what the worker said; ``now`` (monotonic seconds) bounds what can be believed."""
        words = self._words
        since = words[_Word.BUSY_SINCE] / 1e9
        return SlotState(
            busy_since=since if 0 < since <= now else None,
            requests=words[_Word.REQUESTS],
            connections=words[_Word.CONNECTIONS],
            accepted=words[_Word.ACCEPTED],
        )

    def activity(self, now: float) -> tuple[float | None, int]:
        """Return since when the worker is busy, as `read` does, and how many requests it has answered."""
        since = self._words[0] / 1e9
        return (since if 0 < since <= now else None), self._words[1]

    def condition(self) -> tuple[int, int]:
        """Return how often the worker has shown that its loop turns, and its open connections."""
        return self._words[_Word.BEATS], self._words[_Word.CONNECTIONS]

    def arm(self) -> None:
        """Ask to be told when the worker next becomes busy."""
        self._words[_Word.BELL] = 1


class SlotWriter(_Page):
    """The worker's side; ``ring`` is called when the master asked to know of it."""

    def __init__(self, descriptor: int, ring: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self._ring = ring
        self._limit = 0
        self.on_limit: Callable[[], None] = lambda: None
        """Called when as many requests have been answered as `limit` has said."""

    def limit(self, requests: int) -> None:
        """Have `on_limit` called after so many requests since the start; 0: never."""
        self._limit = requests
        if 0 < requests <= self._words[_Word.REQUESTS]:
            self.on_limit()

    def show(self, line: bytes) -> None:
        """Say what the worker is busy with; as `as_line` returns it."""
        self._line[:] = line

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
        words[1] = count = words[1] + 1
        if count == self._limit:
            self.on_limit()

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Be busy with application code that belongs to no request.

        While a request runs, that one's time counts.
        """
        if self._words[0]:
            yield
            return
        self.show(_NO_LINE)
        self.busy()
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """Say that nothing of the application runs, without counting a request."""
        self._words[0] = 0

    def beat(self) -> None:
        """Show that the loop turns; because the master asked."""
        self._words[4] += 1

    def connections(self, count: int) -> None:
        """Say how many connections are open."""
        self._words[2] = count

    def accepted(self) -> None:
        """Count one accepted connection."""
        self._words[3] += 1
