"""A slot's shared memory: what one worker reports, read by the master without a system call.

The layout of the memory file, in bytes::

    0      the fields, unsigned 64-bit integers in native byte order: `_BUSY_SINCE` and the following
    1024   the request line: REQUEST_LINE_SIZE bytes of text, padded with NULs
    4096   the stacks: STACKS bytes, written with write(2) when the master sends `preforkd.linux.stacks.SIGNAL`

There is no lock: each field has one writer (`_WAKEUP_REQUESTED`: the master sets it, the worker clears it),
and an aligned 64-bit store is atomic.  Two fields may be read at different moments; nothing depends on their
combination.
The master uses what it reads for display and for decisions about that worker only, and there is no pid,
index or length among the fields: a worker that writes garbage harms itself.

The position of the memory file, which both sides share, is where the stacks end.  The size is sealed, so
that a worker can neither write without end nor truncate the mapping of the master.
"""

import contextlib
import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

SIZE = 4096
STACKS = 64 * 1024
"""Bytes reserved for the stacks, after the page."""
REQUEST_LINE_SIZE = 256
"""Bytes of the request line."""
_REQUEST_LINE_OFFSET = 1024
_NO_REQUEST_LINE = bytes(REQUEST_LINE_SIZE)

# Indexes of the fields. Plain integers: a member of an enumeration costs an attribute lookup at each access.
_BUSY_SINCE = 0
"""Monotonic nanoseconds at which the application was entered; 0: the worker is idle."""
_REQUESTS = 1
"""Requests answered since the worker's start."""
_CONNECTIONS = 2
"""Open client connections."""
_ACCEPTED = 3
"""Connections accepted since the worker's start."""
_HEARTBEATS = 4
"""Heartbeat messages that the worker's loop has answered."""
_WAKEUP_REQUESTED = 8
"""1: the worker sends ActivityResumed when it next becomes busy. The one field that the master sets."""


class SlotState(Struct, frozen=True):
    """What a worker reports: counts since its start, and monotonic seconds."""

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


def padded_request_line(text: bytes) -> bytes:
    """Return a request line in the form that `SlotWriter.set_request_line` takes: cut, or padded."""
    return text[:REQUEST_LINE_SIZE].ljust(REQUEST_LINE_SIZE, b"\0")


class _SlotPage:
    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE, mmap.MAP_SHARED)
        self._view = memoryview(self._map)
        self._fields = self._view.cast("Q")
        self._request_line = self._view[
            _REQUEST_LINE_OFFSET : _REQUEST_LINE_OFFSET + REQUEST_LINE_SIZE
        ]

    def busy_since_ns(self) -> int:
        """Return the monotonic nanoseconds at which the worker became busy, unchecked; 0: it is idle."""
        return self._fields[_BUSY_SINCE]

    def close(self) -> None:
        """Unmap the page."""
        for view in (self._request_line, self._fields, self._view):
            view.release()
        self._map.close()


class SlotReader(_SlotPage):
    """The master's side; it owns the descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Unmap the page and close the descriptor."""
        super().close()
        os.close(self._descriptor)

    def request_line(self) -> str:
        """Return the first line of the request that runs, as printable text."""
        text = bytes(self._request_line).partition(b"\0")[0].decode("latin-1")
        return "".join(letter if letter.isprintable() else "?" for letter in text)

    def expect_stacks(self) -> None:
        """Discard the stacks that were written before; `stacks` returns those that follow."""
        os.lseek(self._descriptor, SIZE, os.SEEK_SET)

    def stacks(self) -> str:
        """Return what the worker has written since `expect_stacks`."""
        return self._written().replace(b"\0", b"").decode("utf-8", "replace")

    def has_all_stacks(self) -> bool:
        """Return whether the stacks are complete: the worker writes a NUL after the last."""
        return self._written().endswith(b"\0")

    def _written(self) -> bytes:
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        size = min(max(0, end - SIZE), STACKS)
        return os.pread(self._descriptor, size, SIZE)

    def read(self, now: float) -> SlotState:
        """Return the worker's report; a time later than ``now`` (monotonic seconds) is ignored."""
        fields = self._fields
        since = fields[_BUSY_SINCE] / 1e9
        return SlotState(
            busy_since=since if 0 < since <= now else None,
            requests=fields[_REQUESTS],
            connections=fields[_CONNECTIONS],
            accepted=fields[_ACCEPTED],
        )

    def activity(self, now: float) -> tuple[float | None, int]:
        """Return ``busy_since`` and ``requests`` of `read`, without building the structure."""
        since = self._fields[_BUSY_SINCE] / 1e9
        return (since if 0 < since <= now else None), self._fields[_REQUESTS]

    def liveness(self) -> tuple[int, int]:
        """Return how many heartbeats the worker has answered, and its open connections."""
        return self._fields[_HEARTBEATS], self._fields[_CONNECTIONS]

    def request_wakeup(self) -> None:
        """Have the worker send ActivityResumed, once, when it next becomes busy."""
        self._fields[_WAKEUP_REQUESTED] = 1


class SlotWriter(_SlotPage):
    """The worker's side.

    ``activity_resumed`` is called when the worker becomes busy and the master has requested a wake-up.
    """

    def __init__(self, descriptor: int, activity_resumed: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self._activity_resumed = activity_resumed
        self._request_limit = 0
        self.on_request_limit: Callable[[], None] = lambda: None
        """Called when the number of answered requests reaches the limit of `set_request_limit`."""

    def set_request_limit(self, requests: int) -> None:
        """Call `on_request_limit` after this many requests since the start; 0: never."""
        self._request_limit = requests
        if 0 < requests <= self._fields[_REQUESTS]:
            self.on_request_limit()

    def set_request_line(self, line: bytes) -> None:
        """Publish the first line of the request that begins; ``line`` is from `padded_request_line`."""
        self._request_line[:] = line

    def set_busy(self, since: int = 0) -> None:
        """Publish that the application is entered with a request or a connection.

        ``since`` is in monotonic nanoseconds; 0 is now.
        """
        fields = self._fields
        fields[_BUSY_SINCE] = since or time.monotonic_ns()
        if fields[_WAKEUP_REQUESTED]:
            fields[_WAKEUP_REQUESTED] = 0
            self._activity_resumed()

    def request_done(self) -> None:
        """Publish that the application has returned; counts one request."""
        fields = self._fields
        fields[_BUSY_SINCE] = 0
        fields[_REQUESTS] = count = fields[_REQUESTS] + 1
        if count == self._request_limit:
            self.on_request_limit()

    @contextlib.contextmanager
    def busy_outside_request(self) -> Iterator[None]:
        """Be busy while application code runs that belongs to no request (a hook, a finalizer).

        While a request runs, its time stays.
        """
        if self._fields[_BUSY_SINCE]:
            yield
            return
        self.set_request_line(_NO_REQUEST_LINE)
        self.set_busy()
        try:
            yield
        finally:
            self.set_idle()

    def set_idle(self) -> None:
        """Publish that no application code runs, without counting a request."""
        self._fields[_BUSY_SINCE] = 0

    def heartbeat(self) -> None:
        """Count one heartbeat, in answer to the master's Heartbeat message."""
        self._fields[_HEARTBEATS] += 1

    def set_connections(self, count: int) -> None:
        """Publish the number of open connections."""
        self._fields[_CONNECTIONS] = count

    def count_accepted(self) -> None:
        """Count one accepted connection."""
        self._fields[_ACCEPTED] += 1
