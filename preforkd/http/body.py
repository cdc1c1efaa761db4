"""The body of a request: framed by length or chunks, kept in memory or in a file. RFC 9112, 6 and 7."""

import io
import re
import tempfile
from typing import IO, Protocol

from preforkd.http.head import CHUNKED, Bounds, Budget, RequestError

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb"\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\""
_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[ \t]*" + _TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)  # fmt: skip
_MAX_SIZE_LINE = 256
_SMALL_CHUNKS, _MIN_MEAN_CHUNK = 16384, 8
"""Chunks of any size, and the least mean size of further ones: a chunk costs far more than a byte."""
_MAX_PARTS = 8
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")


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
        """Add a part. Raises RequestError for a body that is too large, and StorageError."""
        self.length += len(data)
        if self.length > self._bounds.max_body:
            raise RequestError("413 Content Too Large", "the body is too large")
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


class Framing(Protocol):
    """The framing of a body: where it ends."""

    done: bool
    rest: int
    """Bytes missing of the body, or of the current chunk."""

    def take(self, data: bytes, start: int, store: BodyStore) -> int:
        """Store the bytes from ``start`` on that belong to the body; return the offset behind them.

        Raises RequestError and StorageError.
        """


class Counted:
    """A body with a Content-Length."""

    def __init__(self, length: int) -> None:
        self.done = length == 0
        self.rest = length

    def take(self, data: bytes, start: int, store: BodyStore) -> int:
        """See `Framing`."""
        end = min(len(data), start + self.rest)
        store.write(data[start:end])
        self.rest -= end - start
        self.done = self.rest == 0
        return end


class Chunked:
    """A body in chunks. Extensions and trailers are checked and dropped."""

    def __init__(self, bounds: Bounds) -> None:
        self.done = False
        self.rest = 0
        """Bytes missing of the current chunk, its line end included."""
        self._line = b""
        """The beginning of a size line or a trailer."""
        self._trailers: int | None = None
        """Bytes of the trailers; None before the last chunk."""
        self._trailer_count = 0
        self._chunks = 0
        self._received = 0
        self._bounds = bounds

    def take(self, data: bytes, start: int, store: BodyStore) -> int:
        """See `Framing`."""
        while start < len(data) and not self.done:
            take = self._take_chunk if self.rest else self._take_line
            start = take(data, start, store)
        return start

    def _take_chunk(self, data: bytes, start: int, store: BodyStore) -> int:
        if self.rest > 2:
            end = min(len(data), start + self.rest - 2)
            store.write(data[start:end])
        else:
            end = start + 1
            if data[start:end] != (b"\r" if self.rest == 2 else b"\n"):
                raise RequestError("400 Bad Request", "a chunk does not end in CR LF")
        self.rest -= end - start
        return end

    def _take_line(self, data: bytes, start: int, _store: BodyStore) -> int:
        most = _MAX_SIZE_LINE if self._trailers is None else self._bounds.max_field
        end = data.find(b"\n", start, start + most + 2 - len(self._line))
        if end < 0:
            self._line += data[start : start + most + 2]
            if len(self._line) > most:
                raise RequestError("400 Bad Request", "a chunk's size or a trailer is too long")
            return len(data)
        line = self._line + data[start : end + 1]
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise RequestError("400 Bad Request", "a line does not end in CR LF")
        if self._trailers is None:
            self._begin_chunk(line[:-2])
        else:
            self._drop_trailer(line[:-2])
        return end + 1

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise RequestError("400 Bad Request", "a chunk's size is malformed")
        size = int(match[1], 16)
        self._chunks += 1
        if (self._chunks - _SMALL_CHUNKS) * _MIN_MEAN_CHUNK > self._received:
            raise RequestError("400 Bad Request", "the chunks are too small")
        self._received += size
        if size:
            self.rest = size + 2
        else:
            self._trailers = 0

    def _drop_trailer(self, line: bytes) -> None:
        assert self._trailers is not None
        if not line:
            self.done = True
            return
        self._trailers += len(line) + 2
        self._trailer_count += 1
        bounds = self._bounds
        if self._trailers > bounds.max_header or self._trailer_count > bounds.max_fields:
            raise RequestError("431 Request Header Fields Too Large", "the trailers are too large")
        if _TRAILER.fullmatch(line) is None:
            raise RequestError("400 Bad Request", "a trailer is malformed")


def framing(length: int, bounds: Bounds) -> Framing:
    """Return the framing of a body of this length, or of `CHUNKED`.

    Raises RequestError for one that is too large.
    """
    if length == CHUNKED:
        return Chunked(bounds)
    if length > bounds.max_body:
        raise RequestError("413 Content Too Large", "the body is too large")
    return Counted(length)
