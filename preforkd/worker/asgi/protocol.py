"""One HTTP connection of an ASGI server: input to requests by the engine, timeouts, refusals, the end."""

import time
from typing import Any

from msgspec.structs import replace

from preforkd.config.address import as_ipv4
from preforkd.http import upgrade
from preforkd.http.engine import EndOfRequest, HttpEngine
from preforkd.http.head import RequestError, unparsed_head
from preforkd.http.response import CONTINUE
from preforkd.http.states import State
from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, CompletedRequest
from preforkd.worker.asgi import websocket_support
from preforkd.worker.asgi.cycle import Cycle
from preforkd.worker.asgi.output import Output
from preforkd.worker.asgi.request_body import MAX_UNREAD
from preforkd.worker.asgi.scope import EXTENSIONS, Scope
from preforkd.worker.asgi.shared import Shared
from preforkd.worker.asgi.timer import Waiting
from preforkd.worker.asgi.tracker import RunningRequest
from preforkd.worker.asgi.transport import SocketTransport
from preforkd.worker.listener_context import CachedHead, ListenerContext

_MAX_DISCARDED = 64 * 1024
"""Bytes of a body behind its answer that are received, so that the connection can be kept."""


class _Discard:
    def write(self, data: bytes) -> None:
        """Drop a part of a body that the application does not get."""


_DISCARD = _Discard()


class HttpProtocol(Output):
    """See the module. ``client``: address and port of the client; None: not known (a Unix socket)."""

    cycle: Cycle | None = None
    """The request whose answer is owed."""
    waiting: Waiting | None = None
    served = 0
    _server: tuple[str, int] | None = None
    """Where the client connected to, on a listener for every address."""
    _extensions = EXTENSIONS
    _reading_paused = False
    _eof = False
    """The client has shut down its sending side."""
    _body_window = 0.0, 0
    """The start of the current window of the body's rate (monotonic), and the bytes received by then."""
    _answered_at = 0
    """Bytes of the body that had arrived when its answer was complete."""

    def __init__(
        self, shared: Shared, context: ListenerContext, client: tuple[str, int] | None
    ) -> None:
        super().__init__(shared)
        self.context = context
        self.client = client
        self.engine: HttpEngine[CachedHead] = HttpEngine(context.bounds, context.cached_head)

    @property
    def remote(self) -> str:
        """The client's address; empty where it is not known."""
        return self.client[0] if self.client is not None else ""

    # --- input -----------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take the transport; `wait` is called when what has arrived with it was received."""
        self.transport = transport
        shared = self.shared
        shared.add(self)
        if self.context.wildcard:
            self._server = as_ipv4(transport.get_extra_info("socket").getsockname())[:2]
        if (ssl_object := transport.get_extra_info("ssl_object")) is not None:
            from preforkd.worker.tls import client_facts  # noqa: PLC0415 - OpenSSL only where TLS is on

            self._extensions = {**EXTENSIONS, "tls": client_facts(ssl_object).extension()}
            self.wait()

    def data_received(self, data: bytes) -> None:
        """Take input."""
        engine = self.engine
        if engine.idle and self.cycle is None:
            cached = self.context.complete_head(data)
            if cached is not None and cached.complete and not cached.head.upgrade:
                engine.take_whole(cached)
                self._begin(cached)
                return
        engine.receive(data)
        self._advance()

    def eof_received(self) -> bool:
        """Answer what is complete; return whether the connection stays open for that."""
        self._eof = True
        if self.waiting is Waiting.CLOSE:
            return False
        self.engine.receive(b"")
        self._advance()
        if self.cycle is None or not self.transport.can_write_eof():
            return False
        self.cycle.end_of_input()
        return True

    def _advance(self) -> None:
        engine = self.engine
        try:
            while (event := engine.next_event()) is not None:
                if isinstance(event, EndOfRequest):
                    if self.cycle is not None:
                        self.cycle.end_of_body()
                else:
                    self._on_head(event)
        except RequestError as error:
            self.refuse(error)
            return
        if self.transport.get_protocol() is self:  # and not a WebSocket
            self.wait()

    def _on_head(self, cached: CachedHead) -> None:
        self.engine.sink = _DISCARD
        if cached.probe:
            self._answer_probe(cached)
        elif cached.head.upgrade == b"websocket":
            self._upgrade(cached)
        else:
            self._begin(cached)
            self.engine.sink = self.cycle

    def _begin(self, cached: CachedHead) -> None:
        shared = self.shared
        if self.waiting is not None:
            shared.timer.clear(self)
        self._written_before = self._written
        self.cycle = cycle = Cycle(self, cached, keep=self._keeps(cached))
        cycle.task = shared.loop.create_task(cycle.run(self._scope(cached)))

    def _scope(self, cached: CachedHead) -> Scope:
        scope = cached.template.copy()
        scope["headers"] = list(scope["headers"])
        if cached.remote is None:
            scope["client"] = self.client
        if self._server is not None:
            scope.setdefault("server", self._server)
        scope["state"] = self.shared.state.copy()
        scope["extensions"] = self._extensions.copy()
        return scope

    def _keeps(self, cached: CachedHead) -> bool:
        limits = self.shared.limits
        self.served += 1
        return cached.keep and limits.keep_alive > 0 and self.served != limits.max_requests

    def _answer_probe(self, cached: CachedHead) -> None:
        acceptor, renderer = self.shared.acceptor, self.shared.renderer
        keep = self._keeps(cached) and not acceptor.retiring
        leaving = acceptor.retiring or acceptor.drain_announced
        self.write(
            renderer.probe(cached.probe, leaving=leaving, keep=keep, head_only=cached.head_only)
        )
        self.engine.answer_ended(keep)
        self._answered(keep)

    def _upgrade(self, cached: CachedHead) -> None:
        if (module := websocket_support.load()) is None:
            raise websocket_support.MISSING
        request = upgrade.check(cached.head)
        shared = self.shared
        shared.timer.clear(self)
        shared.connections.discard(self)
        module.start_websocket(
            shared,
            self.transport,
            scope=self._scope(cached),
            head=cached.head,
            request=request,
            engine=self.engine,
            remote=cached.remote or self.remote,
        )

    # --- flow control of the input ----------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`."""
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive again; the timeout of a body begins again."""
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
            self.wait()

    def request_body(self) -> None:
        """Send 100 Continue, if the client waits for it: the application wants the body."""
        engine = self.engine
        if engine.wants_continue and engine.server is State.HEAD:
            engine.wants_continue = False
            self.write(CONTINUE)
            self.wait()

    # --- the end of an answer --------------------------------------------------------------------

    def answered(self, request: RunningRequest, *, keep: bool) -> None:
        """Serve the next request, or end the connection: an answer is complete."""
        if request is self.cycle:
            self.cycle = None
            self._answered(keep)
            if keep:
                if self.engine.buffer or self._eof:
                    self._advance()
                else:
                    self.wait()

    def _answered(self, keep: bool) -> None:
        if not keep:
            self._end()
            return
        self._answered_at = self.engine.received
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def cut_off(self, request: RunningRequest) -> None:
        """End the connection within an answer, so that it does not look complete."""
        if request is self.cycle:
            self.cycle = None
            self.engine.aborted()
            self._end()

    def refuse(self, error: RequestError) -> None:
        """Send an answer of the server's own, if no other has begun, and end the connection."""
        engine, cycle = self.engine, self.cycle
        self.cycle = None
        if engine.server is State.BODY:
            # No bytes may be inserted into the answer.
            engine.aborted()
            self.transport.abort()
        elif engine.server is State.DONE:
            engine.refused()  # behind its answer, the body turned out to be malformed
            self._end()
        else:
            entry = self._incomplete_entry(int(error.status[:3]))
            engine.refused()
            head_only = engine.parsed is not None and engine.parsed.head_only
            answer = self.shared.renderer.plain_error(
                error.status, error.reason, error.headers, head_only=head_only
            )
            length = len(answer.partition(b"\r\n\r\n")[2])
            if cycle is not None:
                cycle.replaced = entry.status, length
            elif self.shared.log is not None:
                self.shared.write_log(replace(entry, length=length))
            self.write(answer)
            self._end()
        if cycle is not None:
            cycle.disconnect()

    def _end(self) -> None:
        """Close the connection, after a lingering close if input may be left unread."""
        timer, transport = self.shared.timer, self.transport
        half_closes = transport.can_write_eof()
        if half_closes:
            # Not left to close(2): it resets the connection if there is unread input, and drops what the kernel
            # holds back for the end (`SocketTransport.write_last`).
            transport.write_eof()
        if self.engine.unread and not self._eof and half_closes:
            if self._reading_paused:
                self._reading_paused = False
                transport.resume_reading()
            timer.set(self, Waiting.CLOSE)
        else:
            timer.clear(self)
            transport.close()
        if transport.get_write_buffer_size():
            self.watch_sending()

    def shutdown(self) -> None:
        """Close an idle connection; a request that has begun is answered first."""
        if self.waiting is Waiting.NEXT_REQUEST:
            self._close_idle()

    def _close_idle(self) -> None:
        transport = self.transport
        plain = isinstance(transport, SocketTransport)
        if plain:
            transport.receive()  # a request that has just arrived is answered, not reset
        if self.engine.idle and self.cycle is None:
            self.shared.timer.clear(self)
            (transport.close_now if plain else transport.close)()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the deadline, log what is not logged yet, and notify the application."""
        cycle, engine = self.cycle, self.engine
        self.shared.timer.clear(self)
        incomplete = cycle is None and engine.incomplete
        if incomplete and self._unlogged is None and self.shared.log is not None:
            self.shared.write_log(self._incomplete_entry(CLIENT_CLOSED_REQUEST))
        self.output_lost(whole=exc is None and cycle is None)
        engine.aborted()
        if cycle is not None:
            self.cycle = None
            cycle.disconnect()
        self.shared.discard(self)

    # --- timeouts --------------------------------------------------------------------------------

    def wait(self) -> None:
        """Set the deadline of what the connection waits for now."""
        engine, timer = self.engine, self.shared.timer
        client = engine.client
        if client is State.IDLE:
            kind = Waiting.NEXT_REQUEST if self.served else Waiting.FIRST_REQUEST
            if self.waiting is not kind:
                timer.set(self, kind)
        elif client is State.HEAD:
            if self.waiting is not Waiting.FIRST_REQUEST:
                timer.set(self, Waiting.FIRST_REQUEST)
        elif client is State.BODY:
            self._wait_for_body()
        elif client is State.DONE:
            timer.clear(self)
            if len(engine.buffer) > MAX_UNREAD:
                self.pause_reading()
        elif client is State.CLOSED and self.cycle is None:
            timer.clear(self)
            self.transport.close()

    def _wait_for_body(self) -> None:
        engine, timer = self.engine, self.shared.timer
        if self._reading_paused or engine.wants_continue:
            timer.clear(self)  # the application's time, not the client's
            return
        if engine.server is State.DONE and engine.received - self._answered_at > _MAX_DISCARDED:
            engine.refused()
            self._end()
            return
        now, received = time.monotonic(), engine.received
        if self.waiting is not Waiting.BODY:
            self._body_window = now, received
        else:
            since, before = self._body_window
            limits = self.shared.limits
            if now - since > limits.body_timeout:
                self._body_window = now, received
                if received - before < limits.body_timeout * limits.min_rate:
                    self.refuse(RequestError("408 Request Timeout", "the body arrives too slowly"))
                    return
        timer.set(self, Waiting.BODY)

    def on_deadline(self, kind: Waiting) -> None:
        """End the connection, or the request that did not arrive."""
        if kind is Waiting.NEXT_REQUEST:
            self._close_idle()
        elif kind is Waiting.CLOSE:
            if self.transport.get_write_buffer_size():
                self.shared.timer.set(self, kind)  # the timeout for sending bounds it
            else:
                self.transport.close()
        elif self.engine.client is State.IDLE:
            self.transport.close()
        else:
            self.refuse(RequestError("408 Request Timeout", "the request did not arrive"))

    def _incomplete_entry(self, status: int) -> CompletedRequest:
        """Return the entry of a request that was never complete."""
        cached = self.engine.parsed
        if cached is None:
            return CompletedRequest(self.remote, unparsed_head(self.engine.buffer), status, 0, 0.0)
        return CompletedRequest(cached.remote or self.remote, cached.head, status, 0, 0.0)
