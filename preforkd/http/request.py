"""HTTP/1 requests, complete or not at all. RFC 9110, RFC 9112.

Parsing is llhttp's (httptools), in its strict mode; here is what a server that stands in front of an
application must insist on besides: one Host, one length, bounded headers and bodies, no header that
means another one to the application.
"""

import io
import tempfile
from collections import deque
from dataclasses import dataclass, field
from typing import IO, NoReturn

import httptools

MAX_PIPELINED = 64
"""Requests that a client may send ahead of our answers in one piece."""


class RequestError(Exception):
    """The client's fault: the status to answer with, and why; the connection ends."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes of a header and of a body at the most, and of a body that stays in memory."""

    max_header: int
    max_body: int
    spool: int


@dataclass(slots=True)
class Request:
    """One request; header names are lower-case bytes, in the order in which they came."""

    method: str = ""
    target: bytes = b""
    version: str = "1.1"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: IO[bytes] = field(default_factory=io.BytesIO)
    body_length: int = 0
    has_body: bool = False
    keep_alive: bool = True


class RequestParser:
    """Fed with what arrives; complete requests gather in ``ready``.

    ``started``: some of a request that is not complete has arrived; ``in_body``: its headers have.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.ready: deque[Request] = deque()
        self.started = False
        self.in_body = False
        self.wants_continue = False
        """The client waits for 100 Continue before it sends the body; reset by who answers."""
        self._bounds = bounds
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request()
        self._size = 0
        self._error: RequestError | None = None

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises RequestError; the parser is of no use afterwards."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # A request for another protocol is answered as if it had not asked; what follows it
            # may be of that protocol, and is not read.
            if self.ready:
                self.ready[-1].keep_alive = False
        except httptools.HttpParserError as error:
            raise self._error or _malformed(error) from error
        if not self.in_body and self.started:
            self._size += len(data)
            self._check_size(self._size)

    def _refuse(self, status: str, reason: str) -> NoReturn:
        self._error = RequestError(status, reason)
        raise self._error

    def _check_size(self, size: int) -> None:
        if size > self._bounds.max_header + 4096:
            self._refuse("431 Request Header Fields Too Large", "the headers are too large")

    # --- called by the parser --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.started = True
        self._request = Request()
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._request.target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._count(len(name) + len(value) + 4)
        if b"_" in name:
            return  # to a WSGI application, X_A and X-A are the same header
        self._request.headers.append((name.lower(), value))

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._bounds.max_header:
            self._refuse("431 Request Header Fields Too Large", "the headers are too large")

    def on_headers_complete(self) -> None:
        """Judge the headers."""
        request = self._request
        request.version = self._parser.get_http_version()
        request.method = self._parser.get_method().decode("ascii")
        request.keep_alive = self._parser.should_keep_alive()
        self.in_body = True
        if request.version not in {"1.0", "1.1"}:
            self._refuse("505 HTTP Version Not Supported", "speak HTTP/1.1")
        if request.method == "CONNECT":
            self._refuse("501 Not Implemented", "CONNECT is not supported")
        self._check_headers(request)

    def _check_headers(self, request: Request) -> None:
        hosts, lengths, codings = [], [], []
        for name, value in request.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                lengths.append(value)
            elif name == b"transfer-encoding":
                codings.append(value.strip().lower())
            elif name == b"expect":
                self._expect(request, value)
            if b"\0" in value or b"\r" in value or b"\n" in value:
                self._refuse("400 Bad Request", "a header contains a control character")
        if len(hosts) > 1 or (not hosts and request.version == "1.1"):
            self._refuse("400 Bad Request", "exactly one Host header is needed")
        if len(lengths) > 1 or (lengths and codings):
            self._refuse("400 Bad Request", "the length of the body is ambiguous")
        if codings:
            if codings != [b"chunked"] or request.version == "1.0":
                self._refuse("501 Not Implemented", "the only transfer coding is chunked")
            request.has_body = True
        if lengths:
            self._check_length(request, lengths[0])

    def _check_length(self, request: Request, text: bytes) -> None:
        if not text.isdigit():
            self._refuse("400 Bad Request", "Content-Length is not a number")
        if len(text) > 18 or int(text) > self._bounds.max_body:
            self._refuse("413 Content Too Large", "the body is too large")
        request.has_body = int(text) > 0

    def _expect(self, request: Request, value: bytes) -> None:
        if value.strip().lower() != b"100-continue":
            self._refuse("417 Expectation Failed", "the only expectation is 100-continue")
        self.wants_continue = request.version == "1.1"

    def on_body(self, data: bytes) -> None:
        """Take a part of the body."""
        request = self._request
        self.wants_continue = False
        length = request.body_length + len(data)
        if length > self._bounds.max_body:
            self._refuse("413 Content Too Large", "the body is too large")
        if length > self._bounds.spool and isinstance(request.body, io.BytesIO):
            file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the request
            file.write(request.body.getbuffer())
            request.body = file
        request.body.write(data)
        request.body_length = length

    def on_message_complete(self) -> None:
        """Put the request with those that are ready."""
        request = self._request
        request.body.seek(0)
        self.started = self.in_body = self.wants_continue = False
        self._size = 0
        if len(self.ready) >= MAX_PIPELINED:
            self._refuse("400 Bad Request", "too many requests are sent ahead")
        self.ready.append(request)


def _malformed(error: Exception) -> RequestError:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return RequestError("400 Bad Request", "there is no such method")
    return RequestError("400 Bad Request", "the request is malformed")
