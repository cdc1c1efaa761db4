"""HTTP/1 responses: the head, and a body whose end the client can find, RFC 9112, section 6.

`Response.start_response` and `Response.write` are those of PEP 3333.
"""

import re
from collections.abc import Callable
from types import TracebackType
from typing import IO, Protocol

from preforkd.http.caches import BoundedCache, Date

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS = re.compile(r"[2-5][0-9][0-9]( [^\x00-\x08\x0a-\x1f\x7f]*)?")
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
     "trailers", "transfer-encoding", "upgrade")
)  # fmt: skip
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST = b"Connection: close\r\n\r\n"
"""The end of a head after whose answer the connection ends."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Headers = list[tuple[str, str]]

_MAX_PLANS = 256
_MAX_CACHED_SIZE = 2048
_LARGE = 32 * 1024
"""Smallest body, in bytes, that is not copied behind its head."""


class ClientGoneError(Exception):
    """The client has left, or read too little for too long."""


class Sink(Protocol):
    """The receiver of a response; each method raises ClientGoneError when the client has left."""

    def send(self, data: bytes) -> None:
        """Send a part; may block until the client has read some of it."""

    def send_nowait(self, data: bytes) -> None:
        """Send the last part; never blocks."""

    def send_whole(self, head: bytes, body: bytes) -> None:
        """Send a whole answer, or the last part, that is too large to be copied."""

    def send_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file by its descriptor; never blocks."""


class ResponsePlan:
    """The rendered head and the framing of all answers with one status and one list of headers."""

    __slots__ = ("bodiless", "code", "date", "head", "keep", "length", "simple")

    def __init__(self, status: str, headers: Headers, server: str) -> None:
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise ValueError(f"not a status: {status!r}")
        self.code = int(status[:3])
        self.bodiless = self.code in {204, 304}
        self.length: int | None = None
        self.date = True
        """A Date header is added."""
        self.keep = True
        """The application did not send Connection: close."""
        # RFC 9112, section 4: the space stays where the reason is empty.
        lines = [f"HTTP/1.1 {status}\r\n" if len(status) > 3 else f"HTTP/1.1 {status} \r\n"]
        for pair in headers:
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise ValueError(f"not a header, a tuple of a name and a value: {pair!r}")
            self._add(lines, *pair)
            if pair[0].lower() == "server":
                server = ""
        if server:
            lines.append(server)
        self.head = "".join(lines).encode("latin-1")
        self.simple = self.keep and self.date and not self.bodiless
        """Only Date, the end of the head and the body are added."""

    def _add(self, lines: list[str], name: str, value: str) -> None:
        if not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
            raise ValueError(f"not a header: {name!r}: {value!r}")
        lower = name.lower()
        if lower in _HOP_BY_HOP:
            # The server decides about the connection; close is honoured, RFC 9110, section 7.6.1.
            if lower == "connection" and value.lower() == "close":
                self.keep = False
            return
        if lower == "content-length":
            if not (value.isascii() and value.isdigit()):
                raise ValueError(f"not a Content-Length: {value!r}")
            if self.length is not None:
                raise ValueError("Content-Length is given twice")
            self.length = int(value)
            if self.code == 204:
                return
        elif lower == "date":
            self.date = False
        lines.append(f"{name}: {value}\r\n")


class Renderer:
    """What all responses of a worker share: the cache of plans, and the Date.

    Most answers of an application have the head of an earlier one, so that it is checked and rendered once.
    ``server`` is the value of the Server header; empty: none.
    """

    def __init__(self, server: str) -> None:
        self._server = f"Server: {server}\r\n" if server else ""
        self._plans: BoundedCache[object, ResponsePlan] = BoundedCache(_MAX_PLANS)
        self.date = Date().line
        """Return the Date header's line."""

    def plan(self, status: str, headers: Headers) -> ResponsePlan:
        """Return the plan of an answer with this status and these headers.

        Raises ValueError for an invalid status or header.
        """
        try:
            if headers.__class__ is not list:
                headers = list(headers)  # a generator can be read only once
            key = (status, *headers)
            plan = self._plans.get(key)
        except TypeError:
            raise ValueError(f"not a list of headers: {headers!r}") from None
        if plan is not None:
            return plan
        plan = ResponsePlan(status, headers, self._server)
        if len(plan.head) <= _MAX_CACHED_SIZE:
            self._plans.keep(key, plan)
        return plan

    def plain_error(self, status: str, reason: str) -> bytes:
        """Return a complete error answer of the server's own."""
        return self.plain(status, f"{status}: {reason}\n", keep=False)

    def plain(self, status: str, text: str, *, keep: bool, head_only: bool = False) -> bytes:
        """Return a complete answer in plain text."""
        body = text.encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
        ]
        end = b"\r\n" if keep else _LAST
        head = ResponsePlan(status, headers, self._server).head + self.date() + end
        return head if head_only else head + body


class Response:
    """The answer to one request; ``keep``: whether the connection stays open afterwards."""

    head_sent = False
    complete = False
    """The answer is complete; what the application does afterwards does not change it."""
    length = 0
    """Bytes of the body that were sent so far."""
    flaw = ""
    """``less`` or ``more``: the application sent that, compared with its Content-Length."""
    _plan: ResponsePlan | None = None
    _chunked = False
    _expected: int | None = None

    def __init__(
        self, sink: Sink, renderer: Renderer, *, head_only: bool, http11: bool, keep: bool
    ) -> None:
        self.keep = keep
        self._sink = sink
        self._renderer = renderer
        self._without_body = head_only
        self._http11 = http11
        self._simple = http11 and not head_only

    @property
    def code(self) -> int:
        """The status code; 0 before it is known."""
        return self._plan.code if self._plan is not None else 0

    @property
    def started(self) -> bool:
        """Return whether `start_response` was called."""
        return self._plan is not None

    @property
    def over(self) -> bool:
        """Return whether further parts of the application would not be sent."""
        plan = self._plan
        return plan is not None and (self._without_body or plan.bodiless or bool(self.flaw))

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Take the status line and the headers; they are sent with the first part of the body.

        Raises ValueError for an invalid status or header.
        """
        if exc_info is not None:
            if self.head_sent:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._plan is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self._plan = self._renderer.plan(status, headers)
        return self.write

    def whole(self, data: bytes) -> None:
        """Send a complete body with its head. Raises ClientGoneError."""
        plan = self._plan
        if plan is None:
            raise AssertionError("the application did not call start_response")
        if data.__class__ is not bytes and not isinstance(data, bytes):
            raise TypeError(f"a part of a body must be bytes, not {type(data).__name__}")
        if not (self._simple and plan.simple and plan.length == len(data) and not self.head_sent):
            self._whole_with_care(plan, data)
            return
        self.head_sent = True
        self.length = plan.length
        end = b"\r\n" if self.keep else _LAST
        if self.length < _LARGE:
            self._sink.send_nowait(b"%b%b%b%b" % (plan.head, self._renderer.date(), end, data))
        else:
            self._sink.send_whole(b"%b%b%b" % (plan.head, self._renderer.date(), end), data)

    def _whole_with_care(self, plan: ResponsePlan, data: bytes) -> None:
        if self.head_sent:
            if data:
                self.write(data)
            self.finish()
            return
        head = self._head(plan, len(data))
        if self._without_body:
            self._sink.send_nowait(head)
            return
        body = self._within_length(data)
        self.length += len(body)
        if self.length < _LARGE:
            self._sink.send_nowait(head + body)
        else:
            self._sink.send_whole(head, body)
        self._check_length()

    def write(self, data: bytes) -> None:
        """Send a part of the body. Raises ClientGoneError."""
        if not isinstance(data, bytes):
            raise TypeError(f"a part of a body must be bytes, not {type(data).__name__}")
        if not data:
            return
        head = self._begin()
        if self._without_body:
            if head:
                self._sink.send_nowait(head)
            return
        data = self._within_length(data)
        self.length += len(data)
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (head, len(data), data)
        elif head:
            data = head + data
        if data:
            self._sink.send(data)

    def write_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file as the whole body. Raises ClientGoneError."""
        plan = self._plan
        if plan is None:
            raise AssertionError("the application did not call start_response")
        if plan.length is not None and count > plan.length:
            # The application's Content-Length bounds the part of the file that is meant.
            count = plan.length
        self._sink.send_nowait(self._head(plan, count))
        if not self._without_body:
            self.length = count  # set before sending: the unsent rest is subtracted later
            self._sink.send_file(file, offset, count)
            self._check_length()
        self.complete = True

    def finish(self) -> None:
        """End the body; one that is shorter than its Content-Length ends the connection."""
        if not self.head_sent:
            self.whole(b"")
        elif self._chunked and not self._without_body:
            self._sink.send_nowait(b"0\r\n\r\n")
        self._check_length()
        self.complete = True

    def _begin(self) -> bytes:
        if self.head_sent:
            return b""
        if self._plan is None:
            raise AssertionError("write was called before start_response")
        return self._head(self._plan, None)

    def _within_length(self, data: bytes) -> bytes:
        if self._expected is not None and self.length + len(data) > self._expected:
            self.flaw = "more"
            self.keep = False
            return data[: self._expected - self.length]
        return data

    def _check_length(self) -> None:
        if self._expected is not None and self.length < self._expected and not self._without_body:
            self.flaw = "less"
            self.keep = False

    def _head(self, plan: ResponsePlan, whole_length: int | None) -> bytes:
        self.head_sent = True
        head = plan.head
        self._without_body = self._without_body or plan.bodiless
        self.keep = self.keep and plan.keep
        self._expected = plan.length
        if plan.length is None and not plan.bodiless:
            if whole_length is not None:
                if not whole_length and self._without_body:
                    return self._head_end(plan, head)  # HEAD: the length of the body is not known
                self._expected = whole_length
                head += b"Content-Length: %d\r\n" % whole_length
            elif self._http11:
                self._chunked = True
                head += b"Transfer-Encoding: chunked\r\n"
            else:
                self.keep = False
        return self._head_end(plan, head)

    def _head_end(self, plan: ResponsePlan, head: bytes) -> bytes:
        if not self.keep:
            head += b"Connection: close\r\n"
        elif not self._http11:
            head += b"Connection: keep-alive\r\n"
        if plan.date:
            head += self._renderer.date()
        return head + b"\r\n"
