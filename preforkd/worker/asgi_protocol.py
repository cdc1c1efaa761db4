"""uvicorn's HTTP protocol with the limits that it does not have: of sizes, and of time.

A client that sends nothing, half a head, or a head without end would otherwise stay for ever. The
settings are those of the WSGI worker and mean the same.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from preforkd.config.settings import Http
from preforkd.worker.asgi_cycle import Cycle, Heads
from preforkd.worker.asgi_surroundings import Application, Tally

_KNOWN_TARGET = 256
"""Bytes of a target up to which its parts are remembered."""


@lru_cache(maxsize=256)
def _split(target: bytes) -> tuple[str, bytes, bytes]:
    """Return path, raw path and query of a request's target. Raises what httptools does."""
    parts = httptools.parse_url(target)
    path = parts.path.decode("ascii")
    return unquote(path) if "%" in path else path, parts.path, parts.query or b""


class _RefusedError(Exception):
    """Ends the parsing; `Guarded.send_400_response` says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A client as the PROXY protocol has named it; the shape of uvicorn's ``client``."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of a worker have in common."""

    limits: Http
    application: Application
    heads: Heads
    tally: Tally


class _Flow(FlowControl):  # type: ignore[misc]
    """Says when reading goes on that had paused."""

    def __init__(self, transport: Any, again: Callable[[], None]) -> None:
        super().__init__(transport)
        self._again = again

    def resume_reading(self) -> None:
        if self.read_paused:
            self._again()
        super().resume_reading()


class Guarded(HttpToolsProtocol):  # type: ignore[misc]
    """One connection. ``peer``: who the client is, where the socket does not say it."""

    def __init__(self, shared: Shared, peer: Peer | None, **how: Any) -> None:
        super().__init__(**how)
        self._shared = shared
        self._limits = shared.limits
        self._peer = peer
        self._due = 0.0
        """By the loop's clock, when what is waited for is late; 0: nothing is waited for."""
        self._late: Callable[[], None] = self._head_is_late
        self._timer: asyncio.TimerHandle | None = None
        """Goes off at `_due` or before; not made anew for each request of a kept connection."""
        self._timer_at = 0.0
        self._idle = False
        """Another request is waited for, on a kept connection."""
        self._refusal = "400 Bad Request"
        self._head_begun = False
        self._head_size = 0
        self._field_count = 0
        self._has_body = False
        self._body_size = 0
        self._body_came = 0.0
        """When the last part of a body came, by the loop's clock; 0: none is due."""
        self.cycle: Cycle | None = None
        self._requests = 0
        self._upgraded = False
        """The connection belongs to a WebSocket."""

    # --- what arrives ----------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self._reading_again)
        if self._peer is not None:
            self.client = (self._peer.address, self._peer.port)
        self._expect(self._limits.header_timeout, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._idle:
            self._idle = False
            self._due = 0.0
        elif self._body_came:
            self._body_came = self.loop.time()
        super().data_received(data)
        if not self._due and not self._upgraded and not self.transport.is_closing():
            cycle = self.cycle
            if self._head_begun or cycle is None or cycle.response_complete:
                self._expect(self._limits.header_timeout, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._head_begun = True
        self._head_size = self._field_count = self._body_size = 0
        self._has_body = False

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self.url += url
        if len(self.url) > self._limits.max_line:
            self._refuse("414 URI Too Long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field."""
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
        name = name.lower()
        if name == b"content-length":
            if int(value) > limits.max_body:
                self._refuse("413 Content Too Large")
            self._has_body = True
        elif name == b"transfer-encoding":
            self._has_body = True
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Let the application begin, and wait for the body."""
        self._due = 0.0
        self._head_begun = False
        parser, scope = self.parser, self.scope
        scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        if parser.should_upgrade() and self._should_upgrade():
            return
        split = _split if len(self.url) <= _KNOWN_TARGET else _split.__wrapped__
        scope["path"], scope["raw_path"], scope["query_string"] = split(self.url)
        self._requests += 1
        limits, shared, before = self._limits, self._shared, self.cycle
        keep_alive = (
            limits.keep_alive > 0
            and self._requests != limits.max_requests
            and version != "1.0"
            and parser.should_keep_alive()
        )
        self.cycle = cycle = Cycle(self, shared.heads, shared.tally, keep_alive=keep_alive)
        if before is None or before.response_complete:
            self._begin(cycle)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, shared.application))
        if self._has_body:
            self._body_came = self.loop.time()
            self._expect(limits.body_timeout, self._judge_body)

    def _begin(self, cycle: Cycle) -> None:
        task = self.loop.create_task(cycle.run_asgi(self._shared.application))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_size += len(body)
        if self._body_size > self._limits.max_body:
            self._refuse("413 Content Too Large")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the application."""
        if self._body_came:
            self._body_came = self._due = 0.0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin with what the client has sent ahead, or wait for its next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._begin(self.pipeline.pop()[0])
        elif not self._body_came and not self._head_begun:
            self._idle = True
            self._expect(self._limits.keep_alive, self.transport.close)

    # --- what does not arrive --------------------------------------------------------------------

    def _expect(self, seconds: float, late: Callable[[], None]) -> None:
        self._due = due = self.loop.time() + seconds
        self._late = late
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
            self._expect(rest, self._late)
        else:
            self._due = 0.0
            self._late()

    def _head_is_late(self) -> None:
        if self._head_begun:
            self._refusal = "408 Request Timeout"
            self.send_400_response("")
        else:
            self.transport.close()

    def _reading_again(self) -> None:
        # While the application does not take what has come, more is not read: not the client's fault.
        if self._body_came:
            self._body_came = self.loop.time()

    def _judge_body(self) -> None:
        if not self._body_came:
            return
        patience = self._limits.body_timeout
        since = self.loop.time() if self.flow.read_paused else self._body_came
        rest = since + patience - self.loop.time()
        if rest > 0:
            self._expect(rest, self._judge_body)
        else:
            self.transport.abort()  # the application is told http.disconnect

    # --- the end ---------------------------------------------------------------------------------

    def _refuse(self, status: str) -> None:
        self._refusal = status
        raise _RefusedError

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, or is too large; the connection ends."""
        self.logger.debug("%s %s", self._refusal, msg)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._head_begun or cycle.response_started or self.pipeline:
                # Another answer is on its way: nothing may be put into it.
                self.transport.abort()
                return
            cycle.disconnected = True
        body = f"{self._refusal}\n".encode()
        lines = [f"HTTP/1.1 {self._refusal}".encode()]
        lines += [name + b": " + value for name, value in self.server_state.default_headers]
        lines += [
            b"content-type: text/plain; charset=utf-8",
            b"content-length: %d" % len(body),
            b"connection: close",
            b"\r\n",
        ]
        self.transport.write(b"\r\n".join(lines)[:-2] + b"\r\n" + body)
        self.transport.close()

    def shutdown(self) -> None:
        """Part from an idle client; one from whom a request is due is served first."""
        if self.cycle is None or self._head_begun:
            return  # its answer says Connection: close, and the time for its head is bounded
        super().shutdown()

    # --- WebSockets ------------------------------------------------------------------------------

    def handle_websocket_upgrade(self) -> None:
        """Let uvicorn's WebSocket protocol go on, with the client that we know."""
        self._upgraded = True
        self._due = 0.0
        self._stop_timer()
        peer, base = self._peer, self.config.ws_protocol_class
        if peer is not None:

            def connection_made(protocol: Any, transport: Any) -> None:
                base.connection_made(protocol, transport)
                protocol.client = (peer.address, peer.port)

            self.ws_protocol_class = type(
                base.__name__, (base,), {"connection_made": connection_made}
            )
        super().handle_websocket_upgrade()
