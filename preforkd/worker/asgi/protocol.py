"""uvicorn's HTTP protocol with the limits that it lacks: sizes and timeouts.

Without them a client that sends nothing, half a head, or an endless head keeps its connection for ever. The
settings are those of the WSGI server and mean the same.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
from msgspec.structs import replace
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected

from preforkd.config.address import as_ipv4
from preforkd.config.settings import HttpSettings
from preforkd.http.head import RequestHead, unparsed_head
from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, AccessLog, CompletedRequest
from preforkd.worker.asgi.cycle import Cycle, ResponseHeads
from preforkd.worker.asgi.middleware import Application, RequestTracker, log_soon
from preforkd.worker.asgi.send_timeout import SendTimeout

_MAX_CACHED_TARGET = 256
"""Longest target, in bytes, whose parts are cached."""
_MAX_LOGGED = 2048
"""Bytes of a malformed request that the log shows."""


@lru_cache(maxsize=256)
def _split(target: bytes) -> tuple[str, bytes, bytes]:
    """Return path, raw path and query of a request's target. Raises what httptools raises."""
    parts = httptools.parse_url(target)
    path = parts.path.decode("ascii")
    return unquote(path) if "%" in path else path, parts.path, parts.query or b""


class _RefusedError(Exception):
    """End the parsing; `HttpProtocol.send_400_response` sends the answer."""


@dataclass(frozen=True, slots=True)
class ProxiedPeer:
    """The client that a PROXY header named; it has the shape of uvicorn's ``client``."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class SharedState:
    """What the connections of a worker share."""

    limits: HttpSettings
    application: Application
    heads: ResponseHeads
    tracker: RequestTracker
    log: AccessLog | None


class _Flow(FlowControl):  # type: ignore[misc]
    """uvicorn's flow control with a callback for the end of a pause in reading."""

    def __init__(self, transport: Any, again: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_resume = again

    def resume_reading(self) -> None:
        if self.read_paused:
            self._on_resume()
        super().resume_reading()


@lru_cache(maxsize=8)
def _websocket_class(base: Any) -> Any:
    """Return uvicorn's WebSocket protocol with a timeout for sending."""

    class WebSocketProtocol(base):  # type: ignore[misc]
        send_timeout: SendTimeout
        names: tuple[Any, Any]
        """Server and client addresses; the socket's own may be a proxy's."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.server, self.client = self.names
            self.send_timeout.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self.send_timeout.stop()
            super().connection_lost(exc)

        if not hasattr(base, "asgi_send"):  # where send() is called by the application

            async def send(self, message: Any) -> None:
                if message["type"] == "websocket.send" and self.transport.is_closing():
                    # The client has left: an exception of the application would be logged for each of them.
                    raise ClientDisconnected
                await super().send(message)

    return WebSocketProtocol


class HttpProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """One connection. ``peer``: the client that a PROXY header named."""

    parser: Any
    server: Any

    def __init__(self, shared: SharedState, peer: ProxiedPeer | None, **how: Any) -> None:
        super().__init__(**how)
        self.url = b""
        self._shared = shared
        self._limits = shared.limits
        self._peer = peer
        self._due = 0.0
        """The deadline by the loop's clock; 0: none."""
        self._on_timeout: Callable[[], None] = self._on_head_timeout
        self._timer: asyncio.TimerHandle | None = None
        """Fires at `_due` or before; reused by the requests of a connection."""
        self._timer_at = 0.0
        self._idle = False
        """The connection waits for its next request."""
        self._refusal = "400 Bad Request"
        self._head_begun = False
        self._head_size = 0
        self._field_count = 0
        self._has_body = False
        self._body_size = 0
        self._body_came = 0.0
        """When the last part of a body arrived, by the loop's clock; 0: none is due."""
        self._window = (0.0, 0)
        """The start of the current window of the body's rate, and the bytes received by then."""
        self.cycle: Cycle | None = None
        self._requests = 0
        self.written = 0
        """Bytes of all answers so far."""
        self._lost = False
        self._missing = 0
        """Bytes of them that the client did not acknowledge; known when the connection is lost."""
        self._unlogged: CompletedRequest | None = None
        """The access log's entry, until the answer is sent or the connection is lost."""
        self._upgraded = False
        """The connection belongs to a WebSocket."""
        self._websocket: Any = None
        self._refused_data = b""
        """The beginning of a first request that could not be parsed."""
        self._ignored = False
        """The last head asks for an upgrade to a protocol that is not supported."""

    # --- input -----------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Start the timeout for the first request."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self._on_reading_resumed)
        self.send_timeout = SendTimeout(self.loop, transport, self._limits)
        self.server = as_ipv4(self.server) if self.server else None
        if self._peer is not None:
            self.client = (self._peer.address, self._peer.port)
        elif self.client:
            self.client = as_ipv4(self.client)
        self._start_timer(self._limits.header_timeout, self._on_head_timeout)

    def data_received(self, data: bytes) -> None:
        """Parse input."""
        if self._idle:
            self._idle = False
            self._due = 0.0
        elif self._body_came:
            self._body_came = self.loop.time()
        rest: Any = data
        while rest is not None:
            rest = self._feed(rest)
        if not self._due and not self._upgraded and not self.transport.is_closing():
            cycle = self.cycle
            if self._head_begun or cycle is None or cycle.response_complete:
                self._start_timer(self._limits.header_timeout, self._on_head_timeout)

    def _feed(self, data: Any) -> Any:
        """Parse input; return the rest behind a head that is parsed again."""
        try:
            if self._ignored:
                self._read_again()
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._requests:
                self._refused_data = bytes(data[:_MAX_LOGGED])
            self.send_400_response("")
        except httptools.HttpParserUpgrade as upgrade:
            if self._ignored:
                return memoryview(data)[upgrade.args[0] :]
            self.handle_websocket_upgrade()
        return None

    def _read_again(self) -> None:
        """Parse a head again without the Upgrade that is ignored, RFC 9110, section 7.8.

        llhttp ends the message at such a head; what follows is the request's body, not another request.
        """
        headers, target = self.headers, self.url
        method, version = self.scope["method"].encode(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b\r\n" % (method, target, version)]
        lines += [b"%b: %b\r\n" % field for field in headers if field[0] != b"upgrade"]
        self._ignored = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"".join(lines) + b"\r\n")
        self.headers[:] = headers

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers, and log what is not logged yet."""
        self._stop_timer()
        self.send_timeout.stop()
        self._lost = True
        cycle = self.cycle
        if self._shared.log is not None:
            whole = exc is None and (cycle is None or cycle.response_complete)
            if (not whole or self.flow.write_paused) and (
                acked := self.send_timeout.acked()
            ) is not None:
                self._missing = max(0, self.written - acked)
            if self._unlogged is not None:
                self._log_now(self._unlogged)
            elif self._head_begun:
                self._log_incomplete(CLIENT_CLOSED_REQUEST, 0)
        super().connection_lost(exc)

    def log(self, answered: CompletedRequest) -> None:
        """Log a request when it is known how much of its answer was sent."""
        if not self._lost and (self.flow.write_paused or self.transport.is_closing()):
            self._unlogged = answered
        else:
            self._log_now(answered)

    def resume_writing(self) -> None:
        """Resume writing: the client has taken most of the buffered output."""
        super().resume_writing()
        if self._unlogged is not None:
            self._log_now(self._unlogged)

    def _log_now(self, answered: CompletedRequest) -> None:
        self._unlogged = None
        if self._missing:
            answered = replace(answered, length=max(0, answered.length - self._missing))
        assert self._shared.log is not None
        log_soon(self._shared.log, answered)

    def _log_incomplete(self, status: int, length: int) -> None:
        """Log a request that was refused before the application was called."""
        if self._shared.log is None:
            return
        head = unparsed_head(self._refused_data)
        if self.url:
            method = self.parser.get_method().decode()
            version = self.parser.get_http_version() if self._field_count else ""
            head = RequestHead(method, self.url, version, (), False, 0, False)
        remote = self.client[0] if self.client else ""
        self._head_begun = False
        log_soon(self._shared.log, CompletedRequest(remote, head, status, length, 0.0))

    def on_message_begin(self) -> None:
        """Reset the counters of a request."""
        super().on_message_begin()
        self._head_begun = True
        self._head_size = self._field_count = self._body_size = 0
        self._has_body = False

    def on_url(self, url: bytes) -> None:
        """Take a part of the target; called by llhttp."""
        self.url += url
        if len(self.url) > self._limits.max_line:
            self._refuse("414 URI Too Long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field, or a trailer; called by llhttp."""
        limits = self._limits
        self._field_count += 1
        size = len(name) + len(value) + 4
        self._head_size += size
        if (
            size > limits.max_field
            or self._head_size + len(self.url) > limits.max_header
            or self._field_count > limits.max_fields
        ):
            self._refuse("431 Request Header Fields Too Large")
        if not self._head_begun:
            return  # a trailer, which must not be treated as a header
        name = name.lower()
        if name == b"content-length":
            if int(value) > limits.max_body:
                self._refuse("413 Content Too Large")
            self._has_body = self._has_body or int(value) > 0
        elif name == b"transfer-encoding":
            self._has_body = True
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Call the application, and start the timeout for the body."""
        parser, scope = self.parser, self.scope
        scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        if parser.should_upgrade():
            self._check_upgrade(version)
            return
        self._due = 0.0
        self._head_begun = False
        self._head_size = self._field_count = 0  # counts trailers from here on
        split = _split if len(self.url) <= _MAX_CACHED_TARGET else _split.__wrapped__
        scope["path"], scope["raw_path"], scope["query_string"] = split(self.url)
        self._requests += 1
        limits, shared, before = self._limits, self._shared, self.cycle
        keep_alive = (
            limits.keep_alive > 0
            and self._requests != limits.max_requests
            and version != "1.0"
            and parser.should_keep_alive()
        )
        self.cycle = cycle = Cycle(self, shared.heads, shared.tracker, keep_alive=keep_alive)
        if before is None or before.response_complete:
            self._begin(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, shared.application))
        if self._has_body:
            self._body_came = now = self.loop.time()
            self._window = (now, 0)
            self._start_timer(limits.body_timeout, self._check_body_rate)

    def _check_upgrade(self, version: str) -> None:
        if self.scope["method"] == "CONNECT":
            self._refuse("501 Not Implemented")
        self._ignored = version == "1.0" or not self._should_upgrade()
        if self._ignored:
            return
        if self._has_body:
            self._refuse("400 Bad Request")  # a WebSocket handshake has no body
        if self.cycle is not None and not self.cycle.response_complete:
            self._refuse("400 Bad Request")  # the connection still belongs to an answer

    def _begin(self, cycle: Cycle) -> None:
        task = self.loop.create_task(cycle.run_asgi(self._shared.application))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; called by llhttp."""
        self._body_size += len(body)
        if self._body_size > self._limits.max_body:
            self._refuse("413 Content Too Large")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the timeout of the body."""
        if self.parser.should_upgrade():
            return
        if self._body_came:
            self._body_came = self._due = 0.0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Serve the next pipelined request, or start the keep-alive timeout."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._begin(self.pipeline.pop()[0])
        elif not self._body_came and not self._head_begun:
            self._idle = True
            self._start_timer(self._limits.keep_alive, self._close)

    # --- timeouts --------------------------------------------------------------------------------

    def _start_timer(self, seconds: float, on_timeout: Callable[[], None]) -> None:
        self._due = due = self.loop.time() + seconds
        self._on_timeout = on_timeout
        if self._timer is None or due < self._timer_at:
            self._stop_timer()
            self._timer = self.loop.call_later(seconds, self._check)
            self._timer_at = due

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if not self._due or self.transport.is_closing():
            return
        rest = self._due - self.loop.time()
        if rest > 0:
            self._start_timer(rest, self._on_timeout)
        else:
            self._due = 0.0
            self._on_timeout()

    def _on_head_timeout(self) -> None:
        if self._head_begun:
            self._refusal = "408 Request Timeout"
            self.send_400_response("")
        else:
            self.transport.close()

    def _on_reading_resumed(self) -> None:
        # Reading was paused by the application, not by the client.
        if self._body_came:
            self._restart_body()

    def _restart_body(self) -> None:
        self._body_came = now = self.loop.time()
        self._window = (now, self._body_size)

    def _check_body_rate(self) -> None:
        if not self._body_came:
            return
        if self.cycle is not None and self.cycle.waiting_for_100_continue:
            self._restart_body()
        timeout, now = self._limits.body_timeout, self.loop.time()
        came, (began, size) = self._body_came, self._window
        if self.flow.read_paused:
            came = began = now
        elif now - began >= timeout:
            if self._body_size - size < self._limits.min_rate * timeout:
                self.transport.abort()  # the application gets http.disconnect
                return
            began = now
            self._window = (now, self._body_size)
        rest = min(came, began) + timeout - now
        if rest > 0:
            self._start_timer(rest, self._check_body_rate)
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Pause the application, and start the timeout for sending."""
        super().pause_writing()
        self.send_timeout.watch()

    # --- the end ---------------------------------------------------------------------------------

    def _refuse(self, status: str) -> None:
        self._refusal = status
        raise _RefusedError

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed or too large request; the connection ends."""
        self.logger.debug("%s %s", self._refusal, msg)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._head_begun or cycle.response_started or self.pipeline:
                # Another answer is being sent: no bytes may be inserted into it.
                self.transport.abort()
                return
            cycle.disconnected = True
        body = f"{self._refusal}\n".encode()
        status = int(self._refusal[:3])
        if cycle is not None and not cycle.response_complete:
            cycle.refused = status, len(body)
        else:
            self._log_incomplete(status, len(body))
        lines = [f"HTTP/1.1 {self._refusal}".encode()]
        lines += [name + b": " + value for name, value in self.server_state.default_headers]
        lines += [
            b"content-type: text/plain; charset=utf-8",
            b"content-length: %d" % len(body),
            b"connection: close",
            b"\r\n",
        ]
        self.transport.write(b"\r\n".join(lines)[:-2] + b"\r\n" + body)
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self.send_timeout.watch()

    def shutdown(self) -> None:
        """Close an idle connection; a request that has begun is answered first."""
        if self.cycle is None or self._head_begun:
            return  # its answer has Connection: close, and its head has a deadline
        super().shutdown()

    # --- WebSockets ------------------------------------------------------------------------------

    def handle_websocket_upgrade(self) -> None:
        """Pass the connection to uvicorn's WebSocket protocol."""
        self._due = 0.0
        self._head_begun = False
        self.ws_protocol_class = self._make_websocket
        try:
            super().handle_websocket_upgrade()
            begun = getattr(self._websocket, "handshake_initiated", True)
        except Exception as error:
            self.logger.debug("WebSocket handshake: %s", error)
            begun = False
        self._upgraded = True
        self._stop_timer()
        if not begun:
            self._refuse_handshake()

    def _refuse_handshake(self) -> None:
        # The WebSocket library cannot parse the head (a header is too long for it) and would never answer.
        if (protocol := self._websocket) is not None:
            protocol.send_timeout.stop()
            self.connections.discard(protocol)
        self.connections.add(self)
        self.transport.set_protocol(self)
        self.send_400_response("")

    def _make_websocket(self, **how: Any) -> Any:
        protocol = _websocket_class(self.config.ws_protocol_class)(**how)
        protocol.names = self.server, self.client
        protocol.send_timeout = SendTimeout(self.loop, self.transport, self._limits, always=True)
        self._websocket = protocol
        return protocol
