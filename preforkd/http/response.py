"""HTTP/1 responses: the head, and a body whose end the client can find, RFC 9112, section 6.

Most answers of an application have the head of an earlier one, so that a head is checked and rendered once, as
a `ResponsePlan`.  `ResponseWriter` makes the bytes of one answer and drives the server's state of the engine.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from preforkd.http.caches import BoundedCache, Date
from preforkd.http.engine import HttpEngine

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_STATUS = re.compile(r"[2-5][0-9][0-9]( [^\x00-\x08\x0a-\x1f\x7f]*)?")
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
     "trailers", "transfer-encoding", "upgrade")
)  # fmt: skip
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LARGE = 32 * 1024
"""Smallest body, in bytes, that is not copied behind its head."""
LAST = b"Connection: close\r\n\r\n"
"""The end of a head after whose answer the connection ends."""

Headers = list[tuple[str, str]]
Fields = Iterable[tuple[bytes, bytes]]

_MAX_PLANS = 256
_MAX_CACHED_SIZE = 2048


def _checked(pair: Any) -> tuple[str, str]:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ValueError(f"not a header, a tuple of a name and a value: {pair!r}")
    name, value = pair
    if not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
        raise ValueError(f"not a header: {name!r}: {value!r}")
    return name, value


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the lines of headers. Raises ValueError for an invalid one."""
    lines = [f"{name}: {value}\r\n" for name, value in map(_checked, headers)]
    return "".join(lines).encode("latin-1")


def decoded(headers: Fields) -> Headers:
    """Return headers in text, as WSGI has them."""
    return [
        (bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers
    ]


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
            name, value = _checked(pair)
            self._add(lines, name, value)
            if name.lower() == "server":
                server = ""
        if server:
            lines.append(server)
        self.head = "".join(lines).encode("latin-1")
        self.simple = self.keep and self.date and not self.bodiless
        """Only Date, the end of the head and the body are added."""

    def _add(self, lines: list[str], name: str, value: str) -> None:
        lower = name.lower()
        if lower in _HOP_BY_HOP:
            # The server decides about the connection; close is honoured, RFC 9110, section 7.6.1.
            options = value.lower().split(",") if lower == "connection" else []
            self.keep = self.keep and "close" not in map(str.strip, options)
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
        return plan if plan is not None else self._new_plan(key, status, headers)

    def plan_of(self, code: int, headers: Fields) -> ResponsePlan:
        """Return the plan of an answer with this status code and headers in bytes, as ASGI has them.

        Raises ValueError for an invalid code or header.
        """
        fields = tuple(headers)
        try:
            plan = self._plans.get((code, fields))
        except TypeError:  # the pairs may be lists
            fields = tuple((bytes(name), bytes(value)) for name, value in fields)
            plan = self._plans.get((code, fields))
        if plan is not None:
            return plan
        try:
            status = f"{code:d} {HTTPStatus(code).phrase}"
        except ValueError:
            status = f"{code:d}"
        return self._new_plan((code, fields), status, decoded(fields))

    def _new_plan(self, key: object, status: str, headers: Headers) -> ResponsePlan:
        plan = ResponsePlan(status, headers, self._server)
        if len(plan.head) <= _MAX_CACHED_SIZE:
            self._plans.keep(key, plan)
        return plan

    def early_hints(self, headers: Headers) -> bytes:
        """Return an informational answer 103, RFC 8297. Raises ValueError for an invalid header."""
        return b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % _lines(headers)

    def switching(self, own: Fields, headers: Fields) -> bytes:
        """Return an answer 101 with the protocol's own headers and those of the application.

        Raises ValueError for an invalid header.
        """
        plan = self.plan_of(200, headers)  # checks them, and drops what belongs to the connection
        lines = b"".join(b"%b: %b\r\n" % field for field in own)
        first = b"HTTP/1.1 101 Switching Protocols\r\n"
        return first + lines + plan.head.partition(b"\r\n")[2] + self.date() + b"\r\n"

    def plain_error(
        self,
        status: str,
        reason: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        head_only: bool = False,
    ) -> bytes:
        """Return a complete error answer of the server's own."""
        text = f"{status}: {reason}\n"
        return self.plain(status, text, keep=False, head_only=head_only, headers=headers)

    def probe(self, which: str, *, leaving: bool, keep: bool, head_only: bool) -> bytes:
        """Return the answer to a probe, ``alive`` or ``ready``; ``leaving``: the worker will not be ready."""
        fine = which == "alive" or not leaving
        status, text = ("200 OK", "ok\n") if fine else ("503 Service Unavailable", "leaving\n")
        return self.plain(status, text, keep=keep, head_only=head_only)

    def plain(
        self,
        status: str,
        text: str,
        *,
        keep: bool,
        head_only: bool = False,
        headers: Iterable[tuple[str, str]] = (),
    ) -> bytes:
        """Return a complete answer in plain text. ``headers`` are added as they are."""
        body = text.encode()
        fields = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
        ]
        end = b"\r\n" if keep else LAST
        added = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
        head = ResponsePlan(status, fields, self._server).head + added + self.date() + end
        return head if head_only else head + body


class ResponseWriter:
    """The bytes of one answer. ``keep``: the connection stays open afterwards.

    The caller sets ``plan`` before the first byte, and sends what the methods return in that order.
    """

    plan: ResponsePlan | None = None
    head_sent = False
    complete = False
    """The answer is complete; what the application does afterwards does not change it."""
    length = 0
    """Bytes of the body so far."""
    flaw = ""
    """``less`` or ``more``: the application sent that, compared with its Content-Length."""
    _chunked = False
    _expected: int | None = None

    def __init__(
        self,
        engine: HttpEngine[Any],
        renderer: Renderer,
        *,
        head_only: bool,
        http11: bool,
        keep: bool,
    ) -> None:
        self.keep = keep
        self._engine = engine
        self._renderer = renderer
        self._without_body = head_only
        self._http11 = http11

    @property
    def code(self) -> int:
        """The status code; 0 before it is known."""
        return self.plan.code if self.plan is not None else 0

    @property
    def over(self) -> bool:
        """Return whether further parts of the application would not be sent."""
        plan = self.plan
        return plan is not None and (self._without_body or plan.bodiless or bool(self.flaw))

    def begin(self, length: int | None) -> bytes:
        """Return the head. ``length``: bytes of the whole body; None: not known."""
        plan = self.plan
        if plan is None:
            raise AssertionError("a part of the body was sent before the status")
        self.head_sent = True
        self._engine.answer_begun()
        head = plan.head
        self._without_body = self._without_body or plan.bodiless
        self.keep = self.keep and plan.keep
        self._expected = plan.length
        if plan.length is None and not plan.bodiless:
            if length is not None:
                if not length and self._without_body:
                    return self._end_head(plan, head)  # HEAD: the length of the body is not known
                self._expected = length
                head += b"Content-Length: %d\r\n" % length
            elif self._http11:
                self._chunked = True
                head += b"Transfer-Encoding: chunked\r\n"
            else:
                self.keep = False
        return self._end_head(plan, head)

    def _end_head(self, plan: ResponsePlan, head: bytes) -> bytes:
        if not self.keep:
            head += b"Connection: close\r\n"
        elif not self._http11:
            head += b"Connection: keep-alive\r\n"
        if plan.date:
            head += self._renderer.date()
        return head + b"\r\n"

    def part(self, data: bytes) -> bytes:
        """Return a part of the body, framed, behind the head if that is not sent yet; may be empty."""
        head = b"" if self.head_sent else self.begin(None)
        if self._without_body or not data:
            return head
        data = self.within_length(data)
        self.length += len(data)
        if self._chunked:
            return b"%b%x\r\n%b\r\n" % (head, len(data), data)
        return head + data if head else data

    def whole(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the head and the body of a complete answer, which ends with it."""
        head = self.begin(len(data))
        body = b"" if self._without_body else self.within_length(data)
        self.length += len(body)
        self.finished()
        return head, body

    def end(self, trailers: Headers | None = None) -> bytes:
        """Return the end of the answer; one that is shorter than its Content-Length ends the connection.

        ``trailers`` are sent where the body is chunked, and dropped elsewhere, RFC 9110, section 6.5.
        Raises ValueError for an invalid trailer.
        """
        data = b"" if self.head_sent else self.begin(0)
        if self._chunked and not self._without_body:
            data += b"0\r\n%b\r\n" % _lines(trailers or ())
        self.finished()
        return data

    def finished(self) -> None:
        """Record the end of the answer."""
        if self._expected is not None and self.length < self._expected and not self._without_body:
            self.flaw = "less"
            self.keep = False
        self.complete = True
        self._engine.answer_ended(self.keep)

    def within_length(self, data: bytes) -> bytes:
        """Return the part of the data that the Content-Length allows."""
        if self._expected is not None and self.length + len(data) > self._expected:
            self.flaw = "more"
            self.keep = False
            return data[: self._expected - self.length]
        return data
