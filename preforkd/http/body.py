"""The body of a request: counted or in chunks, in memory or in a file. RFC 9112, sections 6 and 7."""

import io
import re
import tempfile
from typing import IO, Protocol

from preforkd.http.head import CHUNKED, Bounds, Budget, RequestError

_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"(?:;[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:=(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|\"[ !#-\[\]-~]*\"))?)*"
)
_MAX_SIZE_LINE = 256
_TINY_CHUNKS_FROM, _MIN_MEAN_CHUNK = 4096, 16
"""After so many chunks, their mean size must be so many bytes: each costs far more than a byte."""
_MAX_PARTS = 8
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")


class StorageError(Exception):
    """A body cannot be kept: the disk below the temporary directory is full, or the like."""


class BudgetError(StorageError):
    """The bodies of a worker's requests take all that they may take together."""


class _MemoryBody(io.BytesIO):
    """A body in memory; closed, it is no longer counted."""

    account: "_Account"

    def close(self) -> None:
        self.account.close()
        super().close()


class _FileBody(io.BufferedReader):
    """A body in a file; closed, it is no longer counted."""

    account: "_Account"

    def close(self) -> None:
        self.account.close()
        super().close()


class _Account:
    """What one body has taken of the worker's budget, for as long as it is kept."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._place = "memory"
        self._size = 0

    def take(self, size: int) -> bool:
        """Take more; False: there is not so much."""
        if not self._budget.take(self._place, size):
            return False
        self._size += size
        return True

    def move(self) -> bool:
        """Take it of the files instead of memory; False: there is not so much."""
        size = self._size
        self.close()
        self._place = "files"
        return self.take(size)

    def close(self) -> None:
        """Give back what was taken."""
        size, self._size = self._size, 0
        self._budget.give_back(self._place, size)


class BodyStore:
    """Keeps a body in memory, and above the threshold, or the worker's budget, in a temporary file."""

    def __init__(self, bounds: Bounds) -> None:
        self.length = 0
        self._parts: list[bytes] = []
        """The first few, which are joined once: most bodies have no more."""
        self._memory: io.BytesIO | None = None
        self._disk: io.FileIO | None = None
        self._bounds = bounds
        self._account = _Account(bounds.budget)

    def write(self, data: bytes) -> None:
        """Take a part. Raises RequestError when the body becomes too large, and StorageError."""
        self.length += len(data)
        if self.length > self._bounds.max_body:
            raise RequestError("413 Content Too Large", "the body is too large")
        in_memory = self._disk is None and self.length <= self._bounds.spool
        if in_memory and self._account.take(len(data)):
            self._keep(data)
            return
        if not (self._disk or self._account.move()) or not self._account.take(len(data)):
            raise BudgetError("the bodies of requests take all of http.spool_total")
        try:
            self._write_to_disk(data)
        except OSError as error:
            raise StorageError(f"a request's body cannot be kept: {error.strerror}") from error

    def _keep(self, data: bytes) -> None:
        if self._memory is None:
            self._parts.append(data)
            if len(self._parts) < _MAX_PARTS:
                return
            # Each costs more than its bytes: a client may send them one by one.
            data = self._take_parts()
            self._memory = io.BytesIO()
        self._memory.write(data)

    def _take_parts(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def _write_to_disk(self, data: bytes) -> None:
        if self._disk is None:
            # Without a buffer: what cannot be written is known now, not at some later flush.
            self._disk = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the request
            kept = self._take_parts() if self._memory is None else self._memory.getvalue()
            self._memory = None
            _write_all(self._disk, kept)
        _write_all(self._disk, data)

    def finish(self) -> IO[bytes]:
        """Return the file, at its beginning, for an application to read and for others to close."""
        file: _FileBody | _MemoryBody
        if self._disk is not None:
            self._disk.seek(0)
            file = _FileBody(self._disk)
        else:
            # Not `_memory` itself, which would be uncounted when a larger body leaves it behind.
            file = _MemoryBody(
                self._take_parts() if self._memory is None else self._memory.getvalue()
            )
        file.account = self._account
        return file

    def close(self) -> None:
        """Give up what was kept."""
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
    """Knows where a body ends."""

    done: bool
    rest: int
    """Bytes that are to come of it, or of the present chunk."""

    def take(self, data: bytes, start: int, store: BodyStore) -> int:
        """Store what belongs to the body from ``start`` on; return where it stopped.

        Raises RequestError, and StorageError.
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
    """A body in chunks. Extensions and trailers are judged, and dropped."""

    def __init__(self, bounds: Bounds) -> None:
        self.done = False
        self.rest = 0
        """Its line end included."""
        self._line = b""
        """What has arrived of a size line, or of a trailer."""
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
                raise RequestError("400 Bad Request", "a chunk does not end where it should")
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
            raise RequestError("400 Bad Request", "a line ends without a carriage return")
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
        if self._chunks > _TINY_CHUNKS_FROM and self._received < self._chunks * _MIN_MEAN_CHUNK:
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
    """Return what finds the end of a body of this length, or in chunks.

    Raises RequestError for one that is too large.
    """
    if length == CHUNKED:
        return Chunked(bounds)
    if length > bounds.max_body:
        raise RequestError("413 Content Too Large", "the body is too large")
    return Counted(length)
