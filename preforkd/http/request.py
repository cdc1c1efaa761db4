"""The reader of requests: fed with input, it returns one complete request after the other."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Generic, Protocol, TypeVar

from preforkd.http.body import BodyStore
from preforkd.http.framing import Chunked, Counted, framing
from preforkd.http.head import Bounds, RequestError, RequestHead, refuse_early

_EMPTY_LINES = re.compile(rb"(?:\r\n)*")


class HasHead(Protocol):
    """The caller's own object for a parsed head."""

    head: RequestHead


ParsedHead = TypeVar("ParsedHead", bound=HasHead)


@dataclass(slots=True)
class Request(Generic[ParsedHead]):
    """One complete request; the caller of `RequestReader.next` closes the body."""

    cached: ParsedHead
    body: IO[bytes]
    body_length: int


class RequestReader(Generic[ParsedHead]):
    """The requests of one connection in their order; at most one is incomplete.

    ``find`` returns the caller's object for the bytes of a complete head, which it may cache; it raises
    RequestError.
    """

    def __init__(self, bounds: Bounds, find: Callable[[bytes], ParsedHead]) -> None:
        self.buffer = b""
        """Input that belongs to no request yet."""
        self.wants_continue = False
        """The client waits for 100 Continue before it sends the body; reset by the caller that sends it."""
        self._bounds = bounds
        self._find = find
        self._searched = 0
        self._checked = 0
        self._cached: ParsedHead | None = None
        self._framing: Counted | Chunked | None = None
        self._store: BodyStore | None = None

    @property
    def in_body(self) -> bool:
        """Return whether a head is complete and its body is not."""
        return self._framing is not None

    @property
    def expected(self) -> int:
        """Bytes of the current body, or chunk, that are announced and missing."""
        return self._framing.rest if self._framing is not None else 0

    @property
    def started(self) -> bool:
        """Return whether a part of an incomplete request has arrived."""
        return bool(self.buffer) or self._framing is not None

    @property
    def received(self) -> int:
        """Bytes of the current body that have arrived."""
        return self._store.length if self._store is not None else 0

    @property
    def current(self) -> ParsedHead | None:
        """The head of the incomplete, or refused, request; None: it is incomplete or invalid itself."""
        return self._cached

    def feed(self, data: bytes) -> None:
        """Add input."""
        self.buffer = self.buffer + data if self.buffer else data

    def next(self) -> Request[ParsedHead] | None:
        """Return the next complete request; None: more input is needed.

        Raises RequestError, after which the reader must not be used, and StorageError.
        """
        if self._framing is None and not self._take_head():
            return None
        return self._take_body()

    def _take_head(self) -> bool:
        data = self.buffer
        if data.startswith(b"\r\n"):
            # RFC 9112, section 2.2: empty lines before a request are ignored.
            data = self.buffer = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]
            self._searched = 0
        end = data.find(b"\r\n\r\n", self._searched)
        if end < 0:
            if data and data != b"\r":
                self._checked = refuse_early(data, self._bounds, self._checked, self._searched)
            self._searched = max(0, len(data) - 3)
            return False
        self._searched = 0
        self._checked = 0
        self._cached = cached = self._find(data[: end + 4])
        head = cached.head
        self._framing = framing(head.length, self._bounds)
        self.buffer = data[end + 4 :]
        self.wants_continue = head.expects_continue and not self.buffer
        return True

    def _take_body(self) -> Request[ParsedHead] | None:
        frame, cached = self._framing, self._cached
        assert frame is not None
        assert cached is not None
        if not frame.done:
            if not self.buffer:
                return None
            if self._store is None:
                self._store = BodyStore(self._bounds)
            end = frame.take(self.buffer, 0, self._store)
            self.buffer = self.buffer[end:]
            self.wants_continue = False
            if not frame.done:
                return None
        store = self._store
        self._framing = self._cached = self._store = None
        if store is None:
            return Request(cached, io.BytesIO(), 0)
        return Request(cached, store.finish(), store.length)

    def close(self) -> None:
        """Drop an incomplete request; the reader must not be used afterwards."""
        if self._store is not None:
            self._store.close()


__all__ = ["Bounds", "Request", "RequestError", "RequestHead", "RequestReader"]
