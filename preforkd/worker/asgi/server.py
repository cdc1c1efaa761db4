"""The ASGI server: it accepts connections in the event loop, runs the lifespan, and drains.

The loop watches the acceptor's epoll, which is itself pollable: one connection is accepted for each wake-up,
in turn with the other workers. An idle worker sleeps: nothing here has a tick.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from preforkd.config.settings import Settings
from preforkd.http.forwarded import Trust
from preforkd.http.head import Budget
from preforkd.http.response import Renderer
from preforkd.linux import stacks
from preforkd.logs.access_log import open_access_log
from preforkd.worker.acceptor import Accepted, Acceptor
from preforkd.worker.asgi.drain import Drain
from preforkd.worker.asgi.lifespan import Lifespan
from preforkd.worker.asgi.opening import ProxiedOpening
from preforkd.worker.asgi.protocol import HttpProtocol
from preforkd.worker.asgi.scope import scope_builder
from preforkd.worker.asgi.shared import Shared
from preforkd.worker.asgi.timer import Timer, Waiting
from preforkd.worker.asgi.tracker import RequestTracker, describe_loop
from preforkd.worker.asgi.transport import SocketTransport
from preforkd.worker.deadlines import CLOSE_TIMEOUT
from preforkd.worker.interruption import comes_from_application, retire_after, retire_if_interrupted
from preforkd.worker.listener_context import HttpListener
from preforkd.worker.openings import admits

logger = logging.getLogger("preforkd.worker")


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - an optional extra
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class AsgiServer:
    """Serves one ASGI application; see the module.

    Raises SystemFailure when the access log cannot be opened, ConfigurationError for a certificate that
    cannot be used.
    """

    def __init__(self, acceptor: Acceptor, application: Any, settings: Settings) -> None:
        http = settings.http
        self._acceptor = acceptor
        self._max_connections = http.connections
        self._trust = Trust(settings.proxy.trusted)
        self._listeners = {
            listener.sock.fileno(): HttpListener(
                index, listener, settings, scope_builder, trust=self._trust, budget=Budget()
            )
            for index, listener in enumerate(acceptor.listeners)
        }
        self._rearm = {
            descriptor: partial(acceptor.rearm, descriptor) for descriptor in self._listeners
        }
        self._full = False
        self._openings: set[ProxiedOpening | asyncio.Task[None]] = set()
        """Connections that do not speak HTTP yet (PROXY header, TLS handshake)."""
        self._pid = os.getpid()
        self._loop = loop = _new_loop()
        asyncio.set_event_loop(loop)
        self._ended = asyncio.Event()
        """Set when the worker retires."""
        self._lifespan = Lifespan(application)
        timer = Timer(
            loop,
            {
                Waiting.OPENING: http.header_timeout,
                Waiting.FIRST_REQUEST: http.header_timeout,
                Waiting.BODY: http.body_timeout,
                Waiting.NEXT_REQUEST: http.keep_alive,
                Waiting.CLOSE: CLOSE_TIMEOUT,
            },
        )
        tracker = RequestTracker(acceptor.slot_writer)
        self._shared = Shared(
            loop=loop,
            application=application,
            limits=http,
            websocket=settings.websocket,
            acceptor=acceptor,
            renderer=Renderer(http.server),
            timer=timer,
            tracker=tracker,
            log=open_access_log(settings.access_log),
            state=self._lifespan.state,
            changed=self._on_change,
        )
        self._drain = Drain(self._shared, self._openings, settings.timeouts.drain)
        acceptor.on_overdue = self._answer_overdue
        loop.set_exception_handler(self._on_loop_error)
        # A child of the application that returns into the loop shares uvloop's epoll, which nothing can replace.
        os.register_at_fork(after_in_child=self._stop_in_child)
        stacks.append(lambda: describe_loop(loop, tracker))

    def prepare(self) -> None:
        """Run the lifespan's startup. Raises ApplicationError when that fails."""
        self._loop.run_until_complete(self._lifespan.startup())

    def descriptors(self) -> list[int]:
        """Return the connections and the loop's selector, which are closed in a child of the application."""
        transports = [connection.transport for connection in self._shared.connections]
        socks = [transport.get_extra_info("socket") for transport in transports]
        found = [sock.fileno() for sock in socks if sock is not None]
        found += [
            opening.sock.fileno()
            for opening in self._openings
            if isinstance(opening, ProxiedOpening)
        ]
        if not self._loop.is_closed():
            selector: Any = getattr(self._loop, "_selector", None)
            found += [selector.fileno()] if selector is not None else []
        return found

    def serve(self) -> None:
        """Serve until the worker retires; drain, then run the lifespan's shutdown."""
        interrupted = False
        try:
            task = self._loop.create_task(self._serve())
            while not task.done():
                try:
                    self._loop.run_until_complete(task)
                except BaseException as error:
                    retire_if_interrupted(error, self._acceptor, self._pid)
                    self._acceptor.wake()
                    if task.done() and not interrupted:
                        # The signal handler's exception was raised in this task and ended it.
                        interrupted, task = True, self._loop.create_task(self._serve())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            if self._shared.log is not None:
                self._shared.log.flush()
            self._loop.close()

    async def _serve(self) -> None:
        acceptor, loop = self._acceptor, self._loop
        # An epoll is itself pollable: the acceptor keeps its exclusive wake-ups, and asyncio waits for it.
        loop.add_reader(acceptor.epoll.fileno(), self._on_acceptor)
        acceptor.enable()
        if not acceptor.retiring:
            await self._ended.wait()
        await self._drain.run()
        loop.remove_reader(acceptor.epoll.fileno())
        await self._lifespan.shutdown()

    def _answer_overdue(self) -> None:
        for request in self._shared.tracker.running():
            request.answer_overdue()
            break

    # --- the beginning of a connection -----------------------------------------------------------

    def _on_acceptor(self) -> None:
        acceptor = self._acceptor
        try:
            for descriptor, _ in acceptor.poll(0):
                accepted = acceptor.accept(descriptor, rearm=False)
                if accepted is not None:
                    # Work stays in a warm worker, unless it lasts: then the others are next.
                    self._begin(accepted, self._listeners[descriptor], self._rearm[descriptor])
                elif (rest := acceptor.pause_remaining()) is not None:
                    self._loop.call_later(rest, acceptor.pause_remaining)  # which ends the pause
        except BaseException as error:
            self._on_error(error)
        if acceptor.retiring:
            acceptor.report_retiring()
            acceptor.disable()
            self._ended.set()

    def _stop_in_child(self) -> None:
        if not self._loop.is_closed():
            self._loop.stop()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # uvloop runs signal handlers in this callback of its own.
        if "_read_from_self" in repr(context.get("handle")) and "exception" in context:
            self._on_error(context["exception"])
        else:
            loop.default_exception_handler(context)

    def _on_error(self, error: BaseException) -> None:
        """Handle an exception in a callback of the loop: of a signal handler, or a defect."""
        if os.getpid() != self._pid:
            raise error
        if comes_from_application(error):
            retire_after(error, self._acceptor)
            self._acceptor.wake()
        else:
            logger.error("a connection failed", exc_info=error)

    def _begin(
        self, accepted: Accepted, listener: HttpListener, on_stay: Callable[[], None]
    ) -> None:
        client = (accepted.peer[0], accepted.peer[1]) if accepted.peer.__class__ is tuple else None
        sock = accepted.sock
        try:
            if not listener.proxy_protocol:
                self._connect(sock, listener, client, on_stay)
            elif admits(self._trust, client[0] if client is not None else ""):
                opening = ProxiedOpening(
                    self._shared, sock, client, listener, self._connect_proxied
                )
                self._openings.add(opening)
                self._on_change()
                on_stay()
                opening.advance()
            else:
                sock.close()
        except OSError as error:
            # An error of the client ends its connection only.
            sock.close()
            logger.debug("cannot start a connection: %s", error)

    def _connect_proxied(
        self, opening: ProxiedOpening, client: tuple[str, int] | None, *, done: bool
    ) -> None:
        self._openings.discard(opening)
        if done:
            self._connect(opening.sock, opening.listener, client, lambda: None)
        else:
            opening.sock.close()
        self._on_change()

    def _connect(
        self,
        sock: socket.socket,
        listener: HttpListener,
        client: tuple[str, int] | None,
        on_stay: Callable[[], None],
    ) -> None:
        trusted = bool(self._trust) and self._trust.trusts(client[0] if client is not None else "")
        protocol = HttpProtocol(self._shared, listener.contexts[trusted], client)
        if listener.tls is None:
            SocketTransport(self._loop, sock, protocol, self._on_error, on_stay).begin()
            if protocol.cycle is None:
                protocol.wait()
            return
        on_stay()
        task = self._loop.create_task(self._handshake(sock, listener.tls, protocol))
        self._openings.add(task)
        task.add_done_callback(self._on_handshake_done)

    async def _handshake(self, sock: socket.socket, context: Any, protocol: HttpProtocol) -> None:
        sock.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=context,
                ssl_handshake_timeout=self._shared.limits.header_timeout,
                ssl_shutdown_timeout=CLOSE_TIMEOUT,
            )
        except (OSError, TimeoutError) as error:
            sock.close()
            logger.debug("connection lost before its first request: %s", error)

    def _on_handshake_done(self, task: "asyncio.Task[None]") -> None:
        self._openings.discard(task)
        self._on_change()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("cannot start a connection", exc_info=error)

    def _on_change(self) -> None:
        """Publish the number of connections, and accept as long as there is room."""
        count = len(self._shared.connections)
        self._acceptor.slot_writer.set_connections(count)
        if count + len(self._openings) >= self._max_connections:
            self._full = True
            self._acceptor.disable()
        elif self._full:
            self._full = False
            self._acceptor.enable()
        self._drain.on_change()
