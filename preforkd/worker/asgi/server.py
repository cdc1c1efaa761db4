"""The ASGI server: uvicorn's protocols on the worker's own acceptor.

uvicorn speaks HTTP and WebSockets and runs the lifespan; accepting is done here, one connection for each
wake-up and in turn with the other workers, because uvicorn's own accept loop empties the backlog into the
worker that wakes first. Its ticker, which renews the Date header ten times a second, is replaced as well: an
idle worker sleeps. Limits, timeouts and the PROXY protocol, which uvicorn lacks, are in
`preforkd.worker.asgi.protocol`; what wraps the application is in `preforkd.worker.asgi.middleware`.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from preforkd.config.settings import Settings
from preforkd.errors import ApplicationError
from preforkd.http.caches import Date
from preforkd.http.forwarded import Trust
from preforkd.http.proxy_header import ProxyHeader, ProxyHeaderError
from preforkd.linux import stacks
from preforkd.logs import logs
from preforkd.worker import tls
from preforkd.worker.acceptor import Accepted, Acceptor
from preforkd.worker.asgi import middleware
from preforkd.worker.interruption import retire_if_interrupted

logger = logging.getLogger("preforkd.worker")

_Headers = list[tuple[bytes, bytes]]
_CANCEL_TIME = 5.0
"""Seconds before the end of the drain at which running requests are cancelled; at most a quarter of it."""
_LINGER_SHARE = 0.8
"""The part of the time before that for which idle connections and WebSockets are kept."""
_LOGGED_REQUESTS = 5
"""Cancelled requests that are named in the log."""


class _Connections(set[Any]):
    """uvicorn's set of open connections, with a callback for changes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed

    def add(self, item: Any) -> None:
        super().add(item)
        self._changed()

    def discard(self, item: Any) -> None:
        super().discard(item)
        self._changed()

    def remove(self, item: Any) -> None:
        super().remove(item)
        self._changed()


class _UvicornLogFilter(logging.Filter):
    """Drop tracebacks from uvicorn's log that clients, or the drain, cause."""

    cancelled = False
    """Requests were cancelled by the drain, and that was logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged."""
        if record.msg == "Invalid UTF-8 sequence received from client.":
            return False  # any client can send that; the connection is closed with 1007
        error = record.exc_info[1] if record.exc_info else None
        return not (self.cancelled and isinstance(error, asyncio.CancelledError))


class _ServerState:
    """uvicorn's ``ServerState``, which its protocols share, with a Date header made on demand."""

    def __init__(self, changed: Callable[[], None], server: str) -> None:
        self.total_requests = 0
        self._server: _Headers = [(b"server", server.encode("latin-1"))] if server else []
        self.connections = _Connections(changed)
        self.tasks: set[asyncio.Task[None]] = set()
        self._date = Date(b"%b").line

    @property
    def default_headers(self) -> _Headers:
        return [(b"date", self._date()), *self._server]


def require_uvicorn() -> None:
    """Raise ApplicationError if uvicorn is not installed in the application's environment."""
    try:
        importlib.import_module("preforkd.worker.asgi.protocol")
    except ImportError as error:
        raise ApplicationError(
            f"serving an ASGI application needs uvicorn: {error}",
            hint="pip install 'preforkd[asgi]' into the application's environment",
        ) from error


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - an optional extra
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class AsgiServer:
    """Serves one ASGI application; see the module.

    Raises ApplicationError without uvicorn, SystemFailure when the access log cannot be opened,
    ConfigurationError for a certificate that cannot be used.
    """

    def __init__(self, acceptor: Acceptor, application: Any, settings: Settings) -> None:
        require_uvicorn()
        import uvicorn  # noqa: PLC0415 - an optional extra

        from preforkd.worker.asgi.cycle import ResponseHeads  # noqa: PLC0415
        from preforkd.worker.asgi.protocol import HttpProtocol, ProxiedPeer, SharedState  # noqa: PLC0415

        http = settings.http
        self._acceptor = acceptor
        self._http = http
        self._drain_timeout = settings.timeouts.drain
        self._log_filter = _UvicornLogFilter()
        self._protocol, self._peer = HttpProtocol, ProxiedPeer
        self._trust = Trust(settings.proxy.trusted)
        named = {entry.name or entry.address: entry for entry in settings.listen}
        listeners = {one.name: named[one.name] for one in acceptor.listeners if one.name in named}
        self._secure = {
            name: tls.server_context(settings.tls) for name, entry in listeners.items() if entry.tls
        }
        self._proxied = {name for name, entry in listeners.items() if entry.proxy_protocol}
        self._changed = asyncio.Event()
        self._state = _ServerState(self._connections_changed, http.server)
        self._handshakes: set[asyncio.Task[None]] = set()
        """Tasks of connections that do not speak HTTP yet (PROXY header, TLS)."""
        wrapped = middleware.wrap_application(application, acceptor, settings, self._trust)
        self._shared = SharedState(
            http, wrapped.requests, ResponseHeads(http.server), wrapped.tracker, wrapped.log
        )
        self._config = uvicorn.Config(
            wrapped.others,
            interface="asgi3",
            http="httptools",
            log_config=None,
            log_level="error",  # errors of clients would fill the log
            access_log=False,
            timeout_keep_alive=http.keep_alive,
            proxy_headers=False,
        )
        logs.keep_enabled("uvicorn.error")  # it logs the application's exceptions
        logging.getLogger("uvicorn.error").addFilter(self._log_filter)
        self._loop = _new_loop()
        asyncio.set_event_loop(self._loop)
        stacks.append(lambda: middleware.describe_loop(self._loop, wrapped.tracker))

    def prepare(self) -> None:
        """Load uvicorn's protocols and run the lifespan's startup.

        Raises ApplicationError when that fails.
        """
        self._config.load()
        self._lifespan = self._config.lifespan_class(self._config)
        self._loop.run_until_complete(self._lifespan.startup())
        if self._lifespan.should_exit:
            raise ApplicationError(
                "the application's lifespan startup failed",
                hint="the application's traceback is in the log, just above",
            )

    def descriptors(self) -> list[int]:
        """Return the connections and the loop's selector, which are closed in a child of the application."""
        transports = [protocol.transport for protocol in self._state.connections]
        socks = [transport.get_extra_info("socket") for transport in transports]
        found = [sock.fileno() for sock in socks if sock is not None]
        if not self._loop.is_closed():
            selector: Any = getattr(self._loop, "_selector", None)
            found += [selector.fileno()] if selector is not None else []
        return found

    def serve(self) -> None:
        """Serve until the worker retires; drain, then run the lifespan's shutdown."""
        pid, interrupted = os.getpid(), False
        try:
            task = self._loop.create_task(self._serve())
            while not task.done():
                try:
                    self._loop.run_until_complete(task)
                except BaseException as error:
                    retire_if_interrupted(error, self._acceptor, pid)
                    self._changed.set()
                    if task.done() and not interrupted:
                        # The signal handler's exception was raised in this task and ended it.
                        interrupted, task = True, self._loop.create_task(self._serve())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    # --- connections -----------------------------------------------------------------------------

    def _connections_changed(self) -> None:
        self._acceptor.slot_writer.set_connections(len(self._state.connections))
        self._changed.set()

    async def _serve(self) -> None:
        acceptor, loop = self._acceptor, self._loop
        # An epoll is itself pollable: the acceptor keeps its exclusive wake-ups, and asyncio waits for it.
        loop.add_reader(acceptor.epoll.fileno(), self._changed.set)
        while not acceptor.retiring:
            if len(self._state.connections) + len(self._handshakes) < self._http.connections:
                acceptor.enable()
            else:
                acceptor.disable()
            await self._change(acceptor.pause_remaining())
            for descriptor, _ in acceptor.poll(0):
                if (accepted := acceptor.accept(descriptor)) is None:
                    continue
                try:
                    await self._begin(accepted)
                except Exception as error:
                    # An error of the client ends its connection only.
                    accepted.sock.close()
                    level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
                    logger.log(level, "cannot start a connection", exc_info=error)
        loop.remove_reader(acceptor.epoll.fileno())
        await self._drain()
        await self._lifespan.shutdown()

    # --- the beginning of a connection -----------------------------------------------------------

    async def _begin(self, accepted: Accepted) -> None:
        name = accepted.listener.name
        accepted.sock.setblocking(False)
        if name not in self._proxied and name not in self._secure:
            await self._connect(accepted.sock, None, name)
            return
        # In a task, so that a slow handshake does not delay other connections.
        task = self._loop.create_task(self._handshake(accepted))
        self._handshakes.add(task)
        task.add_done_callback(self._on_handshake_done)

    def _on_handshake_done(self, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("cannot start a connection", exc_info=error)

    async def _handshake(self, accepted: Accepted) -> None:
        sock, name, peer = accepted.sock, accepted.listener.name, None
        if name in self._proxied:
            remote = accepted.peer[0] if sock.family != socket.AF_UNIX else ""
            if not self._trust.trusts(remote):
                logger.warning("connection from %s refused: not in proxy.trusted", remote or "unix")
                sock.close()
                return
            try:
                async with asyncio.timeout(self._http.header_timeout):
                    peer = await self._read_proxy_header(sock)
            except (ProxyHeaderError, OSError, TimeoutError) as error:
                logger.debug("connection from %s: %s", remote, error)
                sock.close()
                return
        await self._connect(sock, peer, name)

    async def _read_proxy_header(self, sock: socket.socket) -> Any:
        header = ProxyHeader()
        while not header.done:
            try:
                count = header.peek(sock.recv(4096, socket.MSG_PEEK))
                data = sock.recv(count) if count else b""
            except BlockingIOError:
                await self._readable(sock)
                continue
            if not data:
                raise ConnectionResetError("the proxy left within its header")
            header.take(data)
        if header.source is None:
            return None
        return self._peer(header.source[0], int(header.source[1]))

    async def _readable(self, sock: socket.socket) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(sock.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(sock.fileno())

    async def _connect(self, sock: socket.socket, peer: Any, name: str) -> None:
        protocol = partial(
            self._protocol,
            self._shared,
            peer,
            config=self._config,
            server_state=self._state,
            app_state=self._lifespan.state,
        )
        how: dict[str, Any] = {}
        if name in self._secure:
            how = {
                "ssl": self._secure[name],
                "ssl_handshake_timeout": self._http.header_timeout,
            }
        try:
            await self._loop.connect_accepted_socket(protocol, sock, **how)
        except (OSError, TimeoutError) as error:
            sock.close()
            logger.debug("connection lost before its first request: %s", error)

    # --- the end ---------------------------------------------------------------------------------

    async def _drain(self) -> None:
        drain_timeout = (
            self._drain_timeout
            if self._acceptor.drain_timeout is None
            else self._acceptor.drain_timeout
        )
        cancel_time = min(_CANCEL_TIME, drain_timeout / 4)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_timeout - cancel_time):
                await self._finish(
                    min(self._acceptor.linger, _LINGER_SHARE * (drain_timeout - cancel_time))
                )
                return
        # Requests that never end (server-sent events, a long poll) must not prevent the lifespan's
        # shutdown.
        self._log_filter.cancelled = True
        tasks = self._handshakes | self._state.tasks
        requests = self._shared.tracker.running()
        if tasks:
            logger.warning(
                "%d requests are still running %g s before the end of timeouts.drain; cancelled%s\n%s",
                len(tasks),
                cancel_time,
                "".join(f"; {request}" for request in requests[:_LOGGED_REQUESTS]),
                "".join(middleware.describe_tasks(list(tasks)[:_LOGGED_REQUESTS])).rstrip(),
            )
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=cancel_time / 2)
        for connection in list(self._state.connections):
            connection.transport.abort()

    async def _finish(self, linger: float) -> None:
        if self._handshakes:
            await asyncio.wait(self._handshakes)
        await self._until_closed(linger)
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._until_closed(None)
        while self._state.tasks:
            await asyncio.wait(self._state.tasks)

    async def _until_closed(self, timeout: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._state.connections:
                    await self._change(None)

    async def _change(self, timeout: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        self._changed.clear()
