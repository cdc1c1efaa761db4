"""The ASGI worker: uvicorn's protocols on the worker's own gate.

uvicorn speaks HTTP and WebSockets and runs the lifespan; accepting is done here, one connection a
wake-up and in turn with the other workers, because uvicorn's own accept loop empties the kernel's
queue into the worker that wakes first. Its ticker, which keeps the Date header fresh ten times a
second, is replaced as well: an idle worker sleeps.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from preforkd.config.settings import Settings
from preforkd.errors import ApplicationError
from preforkd.worker.gate import Gate

logger = logging.getLogger("preforkd.worker")

_Headers = list[tuple[bytes, bytes]]


class _Connections(set[Any]):
    """uvicorn's set of open connections, which tells when it changes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed

    def add(self, item: Any) -> None:
        super().add(item)
        self._changed()

    def discard(self, item: Any) -> None:
        super().discard(item)
        self._changed()


class _State:
    """What uvicorn's protocols share (its ``ServerState``), with a Date header made on demand."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.total_requests = 0
        self.connections = _Connections(changed)
        self.tasks: set[asyncio.Task[None]] = set()
        self._second = 0
        self._headers: _Headers = []

    @property
    def default_headers(self) -> _Headers:
        second = int(time.time())
        if second != self._second:
            self._second = second
            date = formatdate(second, usegmt=True).encode()
            self._headers = [(b"date", date), (b"server", b"preforkd")]
        return self._headers


class AsgiServer:
    """Serves one ASGI application; see the module."""

    def __init__(self, gate: Gate, application: Any, settings: Settings) -> None:
        try:
            import uvicorn  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            raise ApplicationError(
                f"serving an ASGI application needs uvicorn: {error}",
                hint="pip install 'preforkd[asgi]' into the application's environment",
            ) from error
        self._gate = gate
        self._application = application
        self._most = settings.http.connections
        self._running = 0
        self._changed = asyncio.Event()
        self._state = _State(self._connections_changed)
        self._config = uvicorn.Config(
            self._counted,
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=max(1, round(settings.http.keep_alive)),
            proxy_headers=False,
        )
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)

    def prepare(self) -> None:
        """Load uvicorn's side and run the lifespan's start-up.

        Raises ApplicationError when that fails.
        """
        self._config.load()
        self._lifespan = self._config.lifespan_class(self._config)
        self._loop.run_until_complete(self._lifespan.startup())
        if self._lifespan.should_exit:
            raise ApplicationError(
                "the application's lifespan start-up failed",
                hint="its own traceback is in the log, just above",
            )

    def serve(self) -> None:
        """Serve until the worker is to leave; drain, then run the lifespan's shutdown."""
        try:
            self._loop.run_until_complete(self._serve())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    # --- the application -------------------------------------------------------------------------

    async def _counted(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        board = self._gate.board
        self._running += 1
        if self._running == 1:
            board.busy()
        try:
            await self._application(scope, receive, self._closing(send))
        finally:
            self._running -= 1
            board.idle()
            if self._running:
                board.busy()

    def _closing(self, send: Any) -> Any:
        async def closing(message: Any) -> None:
            # A client with a kept connection learns here that the worker leaves, instead of by a
            # reset.
            if message["type"] == "http.response.start" and self._gate.retiring:
                message = dict(message)
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        return closing

    # --- connections -----------------------------------------------------------------------------

    def _connections_changed(self) -> None:
        self._gate.board.connections(len(self._state.connections))
        self._changed.set()

    async def _serve(self) -> None:
        gate, loop = self._gate, self._loop
        # An epoll is itself pollable: the gate keeps its exclusive wake-ups, asyncio waits for it.
        loop.add_reader(gate.epoll.fileno(), self._changed.set)
        while not gate.retiring:
            if len(self._state.connections) < self._most:
                gate.open()
            else:
                gate.shut()
            await self._change(gate.pause())
            for descriptor, _ in gate.poll(0):
                if not gate.retiring:
                    await self._accept(descriptor)
        loop.remove_reader(gate.epoll.fileno())
        await self._drain()
        await self._lifespan.shutdown()

    async def _accept(self, descriptor: int) -> None:
        accepted = self._gate.accept(descriptor)
        if accepted is None:
            return
        sock: socket.socket = accepted.sock
        sock.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock)
        except OSError as error:
            sock.close()
            logger.debug("connection lost at its start: %s", error)

    def _protocol(self) -> Any:
        protocol_class: Any = self._config.http_protocol_class
        return protocol_class(
            config=self._config, server_state=self._state, app_state=self._lifespan.state
        )

    async def _drain(self) -> None:
        await self._until_closed(self._gate.linger)
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._until_closed(None)
        while self._state.tasks:
            await asyncio.wait(self._state.tasks)

    async def _until_closed(self, patience: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._state.connections:
                    await self._change(None)

    async def _change(self, patience: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._changed.wait()
        self._changed.clear()
