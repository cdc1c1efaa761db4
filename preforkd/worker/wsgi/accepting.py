"""The beginning of a connection: accepted from a listener, opened, and read for the first time."""

from collections.abc import Mapping

from preforkd.http.forwarded import Trust
from preforkd.worker.acceptor import Acceptor
from preforkd.worker.listener_context import HttpListener
from preforkd.worker.openings import Opening, admits
from preforkd.worker.wsgi.connection import Connection, Waiting
from preforkd.worker.wsgi.connections import Connections
from preforkd.worker.wsgi.outbox import OutputLimits
from preforkd.worker.wsgi.serving import Serving

_MOST_ENDED = 16
"""Connections that end at once, after which other workers have their turn."""


class Accepting:
    """See the module. ``listeners``: by their descriptors."""

    def __init__(
        self,
        acceptor: Acceptor,
        listeners: Mapping[int, HttpListener],
        connections: Connections,
        serving: Serving,
        *,
        trust: Trust,
        limits: OutputLimits,
    ) -> None:
        self._acceptor = acceptor
        self._listeners = listeners
        self._by_index = list(listeners.values())
        self._trust = trust
        self._limits = limits
        self._ended_at_once = 0
        """Connections that ended at once since this worker was moved to the end of the wait queue."""
        self._connections = connections
        self._serving = serving

    def accept(self, descriptor: int) -> None:
        """Accept one connection from a listener, if there is one, and answer its request if it has arrived."""
        accepted = self._acceptor.accept(descriptor, rearm=False)
        if accepted is None:
            return
        connection = None
        try:
            listener = self._listeners[descriptor]
            remote, port = "", ""
            if accepted.peer.__class__ is tuple:  # not a Unix socket
                remote, port = accepted.peer[0], str(accepted.peer[1])
            trusted = bool(self._trust) and self._trust.trusts(remote)
            context = listener.contexts[trusted]
            connection = Connection(accepted.sock, context, self._limits, remote, port)
            self._connections.add(connection)
            if listener.proxy_protocol or listener.tls is not None:
                self._open(connection, listener)
            else:
                # The request has mostly arrived with the connection.
                self._serving.read(connection)
        except BaseException as error:
            # An error of the client ends its connection only.
            if connection is None:
                accepted.sock.close()
                raise
            self._serving.fail(connection, error)
        # One that has ended already is no load, and this worker is warm: it keeps its place in the wait queue.
        self._ended_at_once += 1
        if not connection.closed or self._ended_at_once >= _MOST_ENDED:
            self._ended_at_once = 0
            self._acceptor.rearm(descriptor)

    def _open(self, connection: Connection, listener: HttpListener) -> None:
        if listener.proxy_protocol and not admits(self._trust, connection.remote):
            self._connections.close(connection)
            return
        connection.opening = Opening(
            connection.sock,  # type: ignore[arg-type]
            proxied=listener.proxy_protocol,
            context=listener.tls,
        )
        self._connections.deadlines.set(connection, Waiting.OPENING)
        self.advance(connection)

    def advance(self, connection: Connection) -> None:
        """Advance the opening of a connection; when it is complete, read."""
        opening = connection.opening
        assert opening is not None
        if events := opening.step():
            self._connections.register(connection, events)
            return
        context = connection.context
        if opening.source is not None:
            trusted = self._trust.trusts(opening.source[0])
            context = self._by_index[context.index].contexts[trusted]
        connection.opened(opening, context)
        self._connections.deadlines.clear(connection)
        self._serving.read(connection)
