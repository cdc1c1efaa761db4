"""The connections that a worker holds: what each waits for, and how it ends.

The only module that registers them in the epoll, sets their deadlines and closes them. For the thread that
runs the loop.
"""

import contextlib
import select
from collections import deque
from collections.abc import Collection, Iterator, Mapping

from preforkd.worker.acceptor import Acceptor
from preforkd.worker.deadlines import Deadlines
from preforkd.worker.wsgi.connection import Connection, Waiting
from preforkd.worker.wsgi.records import Records


class Connections:
    """See the module. ``timeouts``: the seconds for each thing that a connection waits for."""

    def __init__(
        self, acceptor: Acceptor, timeouts: Mapping[Waiting, float], records: Records
    ) -> None:
        self.by_descriptor: dict[int, Connection] = {}
        self.ready: deque[Connection] = deque()
        """Connections with a complete request, or an answer to close, that wait for the application."""
        self.deadlines: Deadlines[Connection, Waiting] = Deadlines(timeouts)
        self._epoll = acceptor.epoll
        self._slot_writer = acceptor.slot_writer
        self._records = records
        self._idle = self.deadlines.of(Waiting.NEXT_REQUEST)

    def __len__(self) -> int:
        return len(self.by_descriptor)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self.by_descriptor.values())

    @property
    def idle(self) -> Collection[Connection]:
        """The connections that wait for another request."""
        return self._idle

    def add(self, connection: Connection) -> None:
        """Add a connection, which waits for nothing yet."""
        self.by_descriptor[connection.fd] = connection
        self._slot_writer.set_connections(len(self.by_descriptor))

    def wait(self, connection: Connection, kind: Waiting, events: int) -> None:
        """Let a connection wait for this, from now on, and for these events of its socket."""
        if kind is Waiting.WRITE:
            connection.outbox.mark()
        self.deadlines.set(connection, kind)
        self.register(connection, events)

    def register(self, connection: Connection, events: int) -> None:
        """Register a connection for these events of epoll; 0: for none."""
        registered = connection.registered
        if registered == events:
            return
        if not registered:
            self._epoll.register(connection.fd, events)
        elif not events:
            self._epoll.unregister(connection.fd)
        else:
            self._epoll.modify(connection.fd, events)
        connection.registered = events

    def suspend(self, connection: Connection) -> None:
        """Let a connection wait for nothing: it belongs to the application now, or waits for it."""
        self.register(connection, 0)
        self.deadlines.clear(connection)

    def end(self, connection: Connection) -> None:
        """End a connection whose output is sent; by a lingering close where input may be left unread."""
        # Not left to close(2): it resets the connection if there is unread input, and drops what the kernel
        # holds back for the end (`Outbox.send_last`).
        connection.shutdown_write()
        if not connection.engine.unread or connection.waiting is Waiting.CLOSE:
            self.close(connection)
        else:
            self.wait(connection, Waiting.CLOSE, select.EPOLLIN)

    def close(self, connection: Connection) -> None:
        """Close a connection and log what is left of it; no effect if it is closed."""
        if self.by_descriptor.get(connection.fd) is not connection:
            return
        del self.by_descriptor[connection.fd]
        self.deadlines.clear(connection)
        if self._records:
            self._records.closed(connection)
        if connection.registered:
            # Closing does not unregister a socket that a child of the application has inherited.
            with contextlib.suppress(OSError):  # the ssl module closes one that fails
                self._epoll.unregister(connection.fd)
            connection.registered = 0
        connection.close()
        if connection.after_sending is not None:
            self.ready.append(connection)
        self._slot_writer.set_connections(len(self.by_descriptor))
