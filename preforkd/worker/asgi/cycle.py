"""One ASGI request and its answer: uvicorn's cycle, with cached heads that are sent with the body.

Most answers of an application have the head of an earlier one, so that a head is checked and rendered once.
It is sent with the first part of the body, as the ASGI specification demands: one packet instead of two, and
an application that fails between the two is answered with 500.
"""

import asyncio
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    RequestResponseCycle,
)

from preforkd.http.caches import BoundedCache, Date
from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, CompletedRequest
from preforkd.worker.asgi.middleware import RequestTracker, answered

_Headers = Iterable[tuple[bytes, bytes]]

_MAX_HEADS = 256
_MAX_CACHED_SIZE = 2048
_MAX_JOINED = 64 * 1024
"""Largest body, in bytes, that is copied behind its head."""


class ResponseHead:
    """A status and headers, rendered; one answer may add Date, Connection and Transfer-Encoding."""

    __slots__ = ("bodiless", "chunked", "close", "date", "length", "status", "text")

    def __init__(self, status: int, headers: _Headers, server: bytes) -> None:
        self.status = status
        self.bodiless = status in {204, 304}
        """No body follows, whatever the Content-Length."""
        self.length: int | None = None
        self.chunked = False
        """The application asked for chunked framing, which the server then does."""
        self.close = False
        self.date = True
        """A Date header is added."""
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        lines = [f"HTTP/1.1 {status:d} {phrase}\r\n".encode()]
        for name, value in headers:
            self._add(lines, name.lower(), value)
            if name.lower() == b"server":
                server = b""
        self.text = b"".join([*lines, server])

    def _add(self, lines: list[bytes], name: bytes, value: bytes) -> None:
        if HEADER_RE.search(name):
            raise RuntimeError("Invalid HTTP header name.")
        if HEADER_VALUE_RE.search(value):
            raise RuntimeError("Invalid HTTP header value.")
        if name == b"content-length" and self.length is None and not self.chunked:
            self.length = int(value.decode())
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            self.length, self.chunked = None, True
        elif name == b"connection":
            self.close = self.close or b"close" in [
                token.lower().strip() for token in value.split(b",")
            ]
        elif name == b"date":
            self.date = False
        if self.bodiless and name == b"transfer-encoding":
            return
        if self.status == 204 and name == b"content-length":
            return
        lines.append(b"%b: %b\r\n" % (name, value))


class ResponseHeads:
    """The cache of rendered heads, and the Date. ``server``: the Server header; empty: none."""

    def __init__(self, server: str) -> None:
        self._server = b"server: %b\r\n" % server.encode("latin-1") if server else b""
        self._cached: BoundedCache[tuple[int, tuple[tuple[bytes, bytes], ...]], ResponseHead]
        self._cached = BoundedCache(_MAX_HEADS)
        self.date = Date(b"date: %b\r\n").line
        """Return the Date header's line."""

    def head(self, status: int, headers: _Headers) -> ResponseHead:
        """Return the rendered head. Raises RuntimeError for an invalid header."""
        fields = tuple(headers)
        try:
            head = self._cached.get((status, fields))
        except TypeError:  # pairs may be lists
            fields = tuple((name, value) for name, value in fields)
            head = self._cached.get((status, fields))
        if head is not None:
            return head
        head = ResponseHead(status, fields, self._server)
        if len(head.text) <= _MAX_CACHED_SIZE:
            self._cached.keep((status, fields), head)
        return head


class Cycle(RequestResponseCycle):  # type: ignore[misc]
    """See the module. ``response_started`` is true when a part of the answer was sent."""

    def __init__(
        self, protocol: Any, heads: ResponseHeads, tracker: RequestTracker, *, keep_alive: bool
    ) -> None:
        # The attributes that uvicorn's constructor would set, without its look-ups.
        self.scope = protocol.scope
        self.transport = protocol.transport
        self._protocol = protocol
        self.flow = protocol.flow
        self.logger = protocol.logger
        self.message_event = asyncio.Event()
        self.on_response = protocol.on_response_complete
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = protocol.expect_100_continue
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding = False
        self.expected_content_length = 0
        self.sent = 0
        """Bytes of the body that were passed to the transport."""
        self.record: tuple[Any, float] | None = None
        """For the access log: the scope as the application sees it, and its start (monotonic)."""
        self.refused: tuple[int, int] | None = None
        """Status and length of an answer of the server's own: the request's body was refused."""
        self._bodiless = False
        self.over = False
        """The answer has no body and is complete; parts that the application still sends are dropped."""
        self._head: Any = None  # a ResponseHead, once the application has sent it
        self._heads = heads
        self._tracker = tracker

    async def run_asgi(self, app: Any) -> None:
        """Call the application, and count the request in the slot."""
        tracker = self._tracker
        if tracker.is_probe(self.scope):
            await super().run_asgi(app)
            return
        tracker.begin(self)
        try:
            await super().run_asgi(app)
        finally:
            tracker.end(self)
            if self.transport.is_closing():
                self._protocol.send_timeout.watch()
            if self.record is not None:
                self._protocol.log(self._answered(*self.record))

    def _answered(self, scope: Any, begun: float) -> CompletedRequest:
        seconds = time.monotonic() - begun
        if self.refused is not None:
            return answered(scope, *self.refused, seconds)
        status = self._head.status if self.response_started else CLIENT_CLOSED_REQUEST
        return answered(scope, status, self.sent, seconds)

    async def send_500_response(self) -> None:
        """Answer 500: the application failed before a part of the answer was sent."""
        self._head = None
        self.sent = 0
        await super().send_500_response()

    async def send(self, message: Any) -> None:
        """Send a part of the answer; called by the application."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.over:
            await asyncio.sleep(0)  # dropped; http.disconnect informs the application
            return
        kind = message["type"]
        if self._head is None:
            if kind != "http.response.start":
                raise RuntimeError(
                    f"Expected ASGI message 'http.response.start', but got '{kind}'."
                )
            self._head = self._heads.head(message["status"], message.get("headers", ()))
            return
        if self.response_complete:
            raise RuntimeError(
                f"Unexpected ASGI message '{kind}' sent, after response already completed."
            )
        if kind != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{kind}'.")
        self._send_body(message.get("body", b""), message.get("more_body", False))

    def _send_body(self, body: bytes, more: bool) -> None:
        head = b""
        if not self.response_started:
            head = self._begin(self._head)
        if self._bodiless:
            body, more, self.over = b"", False, more  # it may be endless
        self.sent += len(body)
        if self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif not self._bodiless:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("Response content longer than Content-Length")
        if not more and self.expected_content_length:
            raise RuntimeError("Response content shorter than Content-Length")
        self.response_started = True
        self.waiting_for_100_continue = False
        self._protocol.written += len(head) + len(body)
        if head and len(body) > _MAX_JOINED:
            self.transport.write(head)
            head = b""
        if head or body:
            self.transport.write(head + body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _begin(self, head: Any) -> bytes:
        text: bytes = head.text
        if head.date:
            text += self._heads.date()
        # The client learns that the worker retires by this header, not by a reset.
        self.keep_alive = self.keep_alive and not head.close and not self._tracker.leaving()
        if not self.keep_alive and not head.close:
            text += b"connection: close\r\n"
        self._bodiless = head.bodiless or self.scope["method"] == "HEAD"
        if self._bodiless:
            return text + b"\r\n"
        if head.length is not None:
            self.expected_content_length = head.length
        elif head.chunked:
            self.chunked_encoding = True
        else:
            self.chunked_encoding = True
            text += b"transfer-encoding: chunked\r\n"
        return text + b"\r\n"
