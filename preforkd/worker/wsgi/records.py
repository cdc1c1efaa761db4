"""The access log's records of a worker's requests.

The record of an answer is logged when no more of it will be sent, so that it has the bytes that the client
got. Without an access log nothing is recorded.
"""

import time
from collections.abc import Callable

from msgspec.structs import replace

from preforkd.http.head import unparsed_head
from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, AccessLog, CompletedRequest
from preforkd.worker.listener_context import CachedHead
from preforkd.worker.wsgi.connection import Connection


class Records:
    """See the module. ``log`` is None where no access log is written."""

    def __init__(self, log: AccessLog | None) -> None:
        self._log = log

    def __bool__(self) -> bool:
        """Return whether an access log is written."""
        return self._log is not None

    def flush(self) -> None:
        """Write what is buffered."""
        if self._log is not None:
            self._log.flush()

    def refused(self, connection: Connection, status: int, send: Callable[[], int]) -> None:
        """Record a request that is refused; ``send`` sends the refusal and returns its length."""
        if self._log is None:
            send()
            return
        connection.outbox.sent = 0
        record = connection.record = _incomplete(connection, status)
        connection.record = replace(record, length=send())
        if not connection.outbox.pending:
            self.sent(connection)

    def answered(
        self, connection: Connection, cached: CachedHead, status: int, length: int, seconds: float
    ) -> None:
        """Record an answer of the application."""
        if self._log is None:
            return
        remote = cached.remote or connection.remote
        connection.record = CompletedRequest(remote, cached.head, status, length, seconds)
        if not connection.outbox.pending:
            self.sent(connection)

    def overdue(
        self, connection: Connection, cached: CachedHead, status: int, length: int, since: float
    ) -> None:
        """Log an overdue request at once: this process ends. ``since``: monotonic seconds."""
        if self._log is None:
            return
        remote, seconds = cached.remote or connection.remote, time.monotonic() - since
        self._log.log(CompletedRequest(remote, cached.head, status, length, seconds))
        self._log.flush()

    def sent(self, connection: Connection) -> None:
        """Log the last answer; called when no more of it will be sent."""
        record, connection.record = connection.record, None
        if record is None or self._log is None:
            return
        outbox = connection.outbox
        if not outbox.sent and outbox.pending:
            record = replace(record, status=CLIENT_CLOSED_REQUEST, length=0)
        elif unsent := outbox.unsent:
            record = replace(record, length=max(0, record.length - unsent))
        self._log.log(record)

    def closed(self, connection: Connection) -> None:
        """Log what is left of a connection that is closed now: an answer, or an incomplete request."""
        if self._log is None:
            return
        if connection.record is None and connection.engine.incomplete:
            connection.record = _incomplete(connection, CLIENT_CLOSED_REQUEST)
        self.sent(connection)


def _incomplete(connection: Connection, status: int) -> CompletedRequest:
    """Return the record of a request that was never complete."""
    engine = connection.engine
    if (cached := engine.parsed) is not None:
        return CompletedRequest(cached.remote or connection.remote, cached.head, status, 0, 0.0)
    return CompletedRequest(connection.remote, unparsed_head(engine.buffer), status, 0, 0.0)
