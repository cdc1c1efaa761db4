"""Where the body of a request ends: by its length, or by chunks. RFC 9112, sections 6 and 7.

A framing passes the bytes of the body to a sink, whole chunks or parts of them as they arrive, and keeps the
trailers apart: they are no headers, RFC 9110, section 6.5.1.
"""

import re
from typing import Protocol

from preforkd.http.head import CHUNKED, Bounds, RequestError

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb"\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\""
_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[ \t]*" + _TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)  # fmt: skip
_MAX_SIZE_LINE = 256
_SMALL_CHUNKS, _MIN_MEAN_CHUNK = 16384, 8
"""Chunks of any size, and the least mean size of further ones: a chunk costs far more than a byte."""
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")

Fields = tuple[tuple[bytes, bytes], ...]


class BodySink(Protocol):
    """The receiver of a body."""

    def write(self, data: bytes) -> None:
        """Take a part. May raise RequestError and StorageError (`preforkd.http.body`)."""


class Counted:
    """A body with a Content-Length."""

    trailers: Fields = ()

    def __init__(self, length: int) -> None:
        self.done = length == 0
        self.rest = length
        """Bytes missing of the body."""
        self.received = 0
        """Bytes of the body that have arrived."""

    def take(self, data: bytes, start: int, sink: BodySink) -> int:
        """Pass the bytes from ``start`` on that belong to the body; return the offset behind them.

        Raises what the sink raises.
        """
        end = min(len(data), start + self.rest)
        self.rest -= end - start
        self.received += end - start
        sink.write(data[start:end])
        self.done = self.rest == 0
        return end


class Chunked:
    """A body in chunks. Extensions are checked and dropped, trailers are checked and kept."""

    def __init__(self, bounds: Bounds) -> None:
        self.done = False
        self.rest = 0
        """Bytes missing of the current chunk, its line end included."""
        self._line = b""
        """The beginning of a size line or a trailer."""
        self.received = 0
        """Bytes of the body that have arrived."""
        self.trailers: Fields = ()
        self._trailers: list[tuple[bytes, bytes]] | None = None
        """The trailers so far; None before the last chunk."""
        self._trailers_size = 0
        self._chunks = 0
        self._announced = 0
        """Bytes of all chunks so far, as their size lines announce them."""
        self._bounds = bounds

    def take(self, data: bytes, start: int, sink: BodySink) -> int:
        """See `Counted.take`. Raises RequestError as well."""
        while start < len(data) and not self.done:
            take = self._take_chunk if self.rest else self._take_line
            start = take(data, start, sink)
        return start

    def _take_chunk(self, data: bytes, start: int, sink: BodySink) -> int:
        if self.rest > 2:
            end = min(len(data), start + self.rest - 2)
            self.received += end - start
            sink.write(data[start:end])
        else:
            end = start + 1
            if data[start:end] != (b"\r" if self.rest == 2 else b"\n"):
                raise RequestError("400 Bad Request", "a chunk does not end in CR LF")
        self.rest -= end - start
        return end

    def _take_line(self, data: bytes, start: int, _sink: BodySink) -> int:
        most = _MAX_SIZE_LINE if self._trailers is None else self._bounds.max_field
        end = data.find(b"\n", start, start + most + 2 - len(self._line))
        if end < 0:
            self._line += data[start : start + most + 2]
            if len(self._line) > most + 1:  # a CR may be the last byte
                raise RequestError("400 Bad Request", "a chunk's size or a trailer is too long")
            return len(data)
        line = self._line + data[start : end + 1]
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise RequestError("400 Bad Request", "a line does not end in CR LF")
        if self._trailers is None:
            self._begin_chunk(line[:-2])
        else:
            self._take_trailer(line[:-2])
        return end + 1

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise RequestError("400 Bad Request", "a chunk's size is malformed")
        size = int(match[1], 16)
        self._chunks += 1
        if (self._chunks - _SMALL_CHUNKS) * _MIN_MEAN_CHUNK > self._announced:
            raise RequestError("400 Bad Request", "the chunks are too small")
        self._announced += size
        if self._announced > self._bounds.max_body:
            raise RequestError("413 Content Too Large", "the body is too large")
        if size:
            self.rest = size + 2
        else:
            self._trailers = []

    def _take_trailer(self, line: bytes) -> None:
        trailers, bounds = self._trailers, self._bounds
        assert trailers is not None
        if not line:
            self.done = True
            self.trailers = tuple(trailers)
            return
        self._trailers_size += len(line) + 2
        if self._trailers_size > bounds.max_header or len(trailers) >= bounds.max_fields:
            raise RequestError("431 Request Header Fields Too Large", "the trailers are too large")
        match = _TRAILER.fullmatch(line)
        if match is None:
            raise RequestError("400 Bad Request", "a trailer is malformed")
        trailers.append((match[1].lower(), match[2].strip(b" \t")))


def framing(length: int, bounds: Bounds) -> Counted | Chunked:
    """Return the framing of a body of this length, or of `CHUNKED`.

    Raises RequestError for one that is too large.
    """
    if length == CHUNKED:
        return Chunked(bounds)
    if length > bounds.max_body:
        raise RequestError("413 Content Too Large", "the body is too large")
    return Counted(length)
