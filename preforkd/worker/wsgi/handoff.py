"""Handing a connection with a complete request to another worker, and taking one.

A request that is complete while the application runs is handed to an idle worker of the same generation
(`preforkd.ipc.handoff`), with the input behind it. TLS connections stay: their state cannot be passed.
"""

import io
import logging
import os
from collections.abc import Sequence
from typing import IO

from preforkd.ipc.handoff import HandedConnection, HandoffQueue, ReceivedConnection, as_file, fits
from preforkd.worker.acceptor import Acceptor
from preforkd.worker.listener_context import HttpListener
from preforkd.worker.wsgi.connection import Connection, Request
from preforkd.worker.wsgi.outbox import OutputLimits

logger = logging.getLogger("preforkd.app")


class Handoff:
    """The worker's end of the handoff queue; see the module."""

    def __init__(
        self,
        queue: HandoffQueue,
        acceptor: Acceptor,
        listeners: Sequence[HttpListener],
        limits: OutputLimits,
    ) -> None:
        self._queue = queue
        self._acceptor = acceptor
        self._listeners = listeners
        self._limits = limits
        acceptor.add_source(queue.fileno())

    def fileno(self) -> int:
        """Return the descriptor that is readable when a connection waits in the queue."""
        return self._queue.fileno()

    def descriptors(self) -> tuple[int, ...]:
        """Return the queue's descriptors."""
        return self._queue.descriptors()

    def give(self, connection: Connection) -> bool:
        """Put a connection with a complete request into the queue; return False if it has to stay.

        The caller closes its copy.
        """
        request = connection.request
        assert request is not None
        if self._acceptor.retiring or connection.secure is not None:
            return False
        body, descriptor = b"", None
        rest = connection.engine.buffer
        if not fits(len(rest)):
            return False
        if request.length and isinstance(request.body, io.BytesIO):
            body = request.body.getvalue()
            if not fits(len(body) + len(rest)):
                descriptor, body = as_file(body), b""
                if descriptor is None:
                    return False
        elif request.length:
            descriptor = os.dup(request.body.fileno())
        handed = HandedConnection(
            listener=connection.context.index,
            trusted=connection.context.trusted,
            remote=connection.remote,
            remote_port=connection.remote_port,
            requests=connection.served,
            head=request.cached.raw,
            body=body,
            body_length=request.length,
            buffered=rest,
            closing=connection.engine.end_of_input,
        )
        try:
            return self._queue.put(handed, connection.fd, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def pass_on(self) -> Connection | None:
        """Take a connection for which this worker was woken and put it back, for another worker.

        Returns the connection if it has to stay; None: it is in the queue, or there was none.
        """
        received = self._queue.get()
        if received is None:
            return None
        if self._queue.put(received.connection, received.sock.fileno(), received.body):
            received.close()
            return None
        return self._adopt(received)

    def take(self) -> Connection | None:
        """Take a connection with its request from the queue; None: there is none."""
        received = self._queue.get()
        if received is None:
            return None
        self._acceptor.rearm(self._queue.fileno())
        return self._adopt(received)

    def _adopt(self, received: ReceivedConnection) -> Connection | None:
        try:
            return self._connection_from(received)
        except Exception:
            logger.exception("cannot take over a connection from another worker; closed")
            received.close()
            return None

    def _connection_from(self, received: ReceivedConnection) -> Connection:
        handed = received.connection
        context = self._listeners[handed.listener].contexts[handed.trusted]
        connection = Connection(
            received.sock, context, self._limits, handed.remote, handed.remote_port
        )
        connection.served = handed.requests
        cached = context.cached_head(handed.head)
        body: IO[bytes] = io.BytesIO(handed.body)
        if received.body is not None:
            os.lseek(received.body, 0, os.SEEK_SET)
            body, received.body = os.fdopen(received.body, "rb"), None
        connection.request = Request(cached, body, handed.body_length)
        connection.engine.take_whole(cached, handed.buffered)
        if handed.closing:
            connection.engine.receive(b"")
        return connection
