"""HTTP/1 responses: the head, and a body framed so that the client knows where it ends.

RFC 9112, section 6.
"""

import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Protocol

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\r\n\0]")
_STATUS = re.compile(r"[1-5][0-9][0-9]( [^\r\n\0]*)?")
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
     "trailers", "transfer-encoding", "upgrade")
)  # fmt: skip
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_date = (0, b"")


class ClientGoneError(Exception):
    """The client has left, or has not read for too long."""


class Sink(Protocol):
    """Where a response goes; both raise ClientGoneError when nobody takes it any more."""

    def send(self, data: bytes) -> None:
        """Take a part, after which there is more; may wait until some of it has been read."""

    def send_last(self, data: bytes) -> None:
        """Take the last part; never waits."""


def _date_line() -> bytes:
    # Made once a second by whoever needs it: no timer keeps it fresh.
    global _date  # noqa: PLW0603
    now = int(time.time())
    if now != _date[0]:
        _date = (now, b"Date: " + formatdate(now, usegmt=True).encode() + b"\r\n")
    return _date[1]


class Response:
    """The answer to one request; ``keep`` tells afterwards whether the connection may go on."""

    def __init__(self, sink: Sink, *, method: str, version: str, keep: bool) -> None:
        self.keep = keep
        self.head_sent = False
        self._sink = sink
        self._without_body = method == "HEAD"
        self._modern = version == "1.1"
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._length: int | None = None
        self._sent = 0
        self._chunked = False

    @property
    def code(self) -> int:
        """The status code; 0 before `start`."""
        return int(self._status[:3] or 0)

    @property
    def length(self) -> int:
        """Bytes of the body that were sent so far."""
        return self._sent

    @property
    def started(self) -> bool:
        """Tell whether `start` was called."""
        return bool(self._status)

    def start(self, status: str, headers: Sequence[tuple[str, str]]) -> None:
        """Take the status line and the headers; they are sent with the first of the body.

        Raises ValueError for what cannot be a status or a header.
        """
        if not _STATUS.fullmatch(status):
            raise ValueError(f"not a status: {status!r}")
        kept = []
        length: int | None = None
        for name, value in headers:
            if not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
                raise ValueError(f"not a header: {name!r}: {value!r}")
            lower = name.lower()
            if lower in _HOP_BY_HOP:
                # The connection is ours to keep or to close; the wish to close it is heard.
                if lower == "connection" and value.lower() == "close":
                    self.keep = False
                continue
            if lower == "content-length":
                length = int(value)
            kept.append((name, value))
        self._status, self._headers, self._length = status, kept, length
        code = status[:3]
        if code in {"204", "304"} or code < "200":
            self._without_body = True

    def write(self, data: bytes, *, whole: bool = False) -> None:
        """Send a part of the body; ``whole`` says that it is all of it. Raises ClientGoneError."""
        if not isinstance(data, bytes):
            raise TypeError(f"a part of a body must be bytes, not {type(data).__name__}")
        if not data and not whole:
            return
        head = b"" if self.head_sent else self._head(len(data) if whole else None)
        if self._without_body:
            if head:
                self._sink.send_last(head)
            return
        if self._length is not None and self._sent + len(data) > self._length:
            data = data[: self._length - self._sent]
            self.keep = False
        self._sent += len(data)
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if whole:
            self._sink.send_last(head + data)
        elif head or data:
            self._sink.send(head + data)

    def finish(self) -> bool:
        """End the body; False when it is shorter than was said, so that the connection must end."""
        if not self.head_sent:
            self.write(b"", whole=True)
        if self._chunked and not self._without_body:
            self._sink.send_last(b"0\r\n\r\n")
        short = self._length is not None and not self._without_body and self._sent < self._length
        if short:
            self.keep = False
        return not short

    def _head(self, whole_length: int | None) -> bytes:
        self.head_sent = True
        code = self._status[:3]
        lines = [f"HTTP/1.1 {self._status}\r\n"]
        names = set()
        for name, value in self._headers:
            names.add(name.lower())
            if name.lower() == "content-length" and code == "204":
                continue
            lines.append(f"{name}: {value}\r\n")
        if self._length is None and code not in {"204", "304"} and code >= "200":
            if whole_length is not None:
                self._length = whole_length
                lines.append(f"Content-Length: {whole_length}\r\n")
            elif self._modern:
                self._chunked = True
                lines.append("Transfer-Encoding: chunked\r\n")
            else:
                self.keep = False
        if not self.keep:
            lines.append("Connection: close\r\n")
        elif not self._modern:
            lines.append("Connection: keep-alive\r\n")
        if "server" not in names:
            lines.append("Server: preforkd\r\n")
        head = "".join(lines).encode("latin-1")
        return head + (b"" if "date" in names else _date_line()) + b"\r\n"


def plain_error(status: str, reason: str) -> bytes:
    """Return a whole answer to a request that did not reach the application."""
    body = f"{status}: {reason}\n".encode()
    return (
        (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\nServer: preforkd\r\n"
        ).encode()
        + _date_line()
        + b"\r\n"
        + body
    )
