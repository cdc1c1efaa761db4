"""A body that is kept whole: in memory, or in a file. It is a sink of `preforkd.http.framing`."""

import io
import tempfile
from typing import IO

from preforkd.http.head import Bounds, Budget

_MAX_PARTS = 8


class StorageError(Exception):
    """A body cannot be kept, for example because the disk of the temporary directory is full."""


class BudgetError(StorageError):
    """The bodies of a worker's requests use all of their budget."""


class _MemoryBody(io.BytesIO):
    """A body in memory; `close` releases its bytes of the budget."""

    account: "_Account"

    def close(self) -> None:
        self.account.close()
        super().close()


class _FileBody(io.BufferedReader):
    """A body in a file; `close` releases its bytes of the budget."""

    account: "_Account"

    def close(self) -> None:
        self.account.close()
        super().close()


class _Account:
    """The bytes of the worker's budget that one body has reserved."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._place = "memory"
        self._size = 0

    def take(self, size: int) -> bool:
        """Reserve more bytes; return False if too few are left."""
        if not self._budget.take(self._place, size):
            return False
        self._size += size
        return True

    def move(self) -> bool:
        """Move the reservation from memory to files; return False if too few bytes are left there."""
        size = self._size
        self.close()
        self._place = "files"
        return self.take(size)

    def close(self) -> None:
        """Release the reservation."""
        size, self._size = self._size, 0
        self._budget.give_back(self._place, size)


class BodyStore:
    """The bytes of a body: in memory, or spooled to a file above the threshold or the memory budget."""

    def __init__(self, bounds: Bounds) -> None:
        self.length = 0
        self._parts: list[bytes] = []
        """The first parts, which are joined once: most bodies have no more."""
        self._memory: io.BytesIO | None = None
        self._disk: io.FileIO | None = None
        self._bounds = bounds
        self._account = _Account(bounds.budget)

    def write(self, data: bytes) -> None:
        """Add a part. Raises StorageError."""
        self.length += len(data)
        in_memory = self._disk is None and self.length <= self._bounds.spool
        if in_memory and self._account.take(len(data)):
            self._keep(data)
            return
        if not (self._disk or self._account.move()) or not self._account.take(len(data)):
            raise BudgetError("request bodies use all of http.spool_total")
        try:
            self._write_to_disk(data)
        except OSError as error:
            raise StorageError(f"cannot spool a request body: {error.strerror}") from error

    def _keep(self, data: bytes) -> None:
        if self._memory is None:
            self._parts.append(data)
            if len(self._parts) < _MAX_PARTS:
                return
            # An object costs more than its bytes, and a client may send them one by one.
            data = self._take_parts()
            self._memory = io.BytesIO()
        self._memory.write(data)

    def _take_parts(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def _write_to_disk(self, data: bytes) -> None:
        if self._disk is None:
            # Unbuffered: an error is raised here, not at a later flush.
            self._disk = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the request
            kept = self._take_parts() if self._memory is None else self._memory.getvalue()
            self._memory = None
            _write_all(self._disk, kept)
        _write_all(self._disk, data)

    def finish(self) -> IO[bytes]:
        """Return the body as a file at its beginning; the caller closes it."""
        file: _FileBody | _MemoryBody
        if self._disk is not None:
            self._disk.seek(0)
            file = _FileBody(self._disk)
        else:
            # A copy: closing `_memory` when a larger body moves to a file must not release the budget.
            file = _MemoryBody(
                self._take_parts() if self._memory is None else self._memory.getvalue()
            )
        file.account = self._account
        return file

    def close(self) -> None:
        """Drop the body."""
        self._parts.clear()
        self._account.close()
        for file in (self._memory, self._disk):
            if file is not None:
                file.close()


def _write_all(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]
