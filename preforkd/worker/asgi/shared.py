"""What the connections of a worker share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from preforkd.config.settings import HttpSettings, WebSocketSettings
from preforkd.http.engine import HttpEngine
from preforkd.http.head import RequestError
from preforkd.http.response import Renderer
from preforkd.logs.access_log import AccessLog, CompletedRequest
from preforkd.worker.acceptor import Acceptor
from preforkd.worker.asgi.timer import Timer
from preforkd.worker.asgi.tracker import RequestTracker, RunningRequest
from preforkd.worker.listener_context import CachedHead


@dataclass(slots=True)
class Shared:
    """The application with its surroundings; ``changed`` is called when a connection begins or ends."""

    loop: asyncio.AbstractEventLoop
    application: Any
    limits: HttpSettings
    websocket: WebSocketSettings
    acceptor: Acceptor
    renderer: Renderer
    timer: Timer
    tracker: RequestTracker
    log: AccessLog | None
    state: dict[str, Any]
    """What the lifespan's startup has stored; each request gets a shallow copy."""
    changed: Callable[[], None]
    connections: set[Any] = field(default_factory=set)
    """The protocols of the open connections; each has ``transport`` and ``shutdown``."""
    websocket_tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    """The applications of the WebSockets."""

    def add(self, connection: Any) -> None:
        """Add an open connection."""
        self.connections.add(connection)
        self.changed()

    def discard(self, connection: Any) -> None:
        """Remove a connection that is lost, or that has another protocol."""
        self.connections.discard(connection)
        self.changed()

    def write_log(self, entry: CompletedRequest) -> None:
        """Add an entry to the access log, to be written in the loop's next turn."""
        log = self.log
        assert log is not None
        if not log.pending:
            self.loop.call_soon(log.flush)
        log.log(entry)


class Connection(Protocol):
    """What a request uses of its connection, a `preforkd.worker.asgi.protocol.HttpProtocol`."""

    shared: Shared
    engine: HttpEngine[CachedHead]
    write_paused: bool

    @property
    def remote(self) -> str:
        """The client's address; empty where it is not known."""

    def request_body(self) -> None:
        """Let the client send the body: the application wants it."""

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`."""

    def resume_reading(self) -> None:
        """Receive again."""

    def write(self, data: bytes) -> None:
        """Send data."""

    def write_last(self, data: bytes) -> None:
        """Send the end of the last answer."""

    async def drain(self) -> None:
        """Wait until the client has taken most of the output, or is gone."""

    def answered(self, request: RunningRequest, *, keep: bool) -> None:
        """Take the end of an answer."""

    def cut_off(self, request: RunningRequest) -> None:
        """End the connection within an answer."""

    def refuse(self, error: RequestError) -> None:
        """Send an answer of the server's own instead."""

    def log(self, entry: CompletedRequest) -> None:
        """Log the request."""
