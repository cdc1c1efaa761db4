"""Requests from the input: complete ones, refused ones, and what to wait for where neither has arrived."""

import logging
import math
import select
import time

from preforkd.config.settings import HttpSettings
from preforkd.http.body import BudgetError, StorageError
from preforkd.http.bounds import RequestError
from preforkd.http.response import CONTINUE
from preforkd.http.states import State
from preforkd.worker.wsgi.answering import Answering
from preforkd.worker.wsgi.connection import Connection, Waiting
from preforkd.worker.wsgi.connections import Connections
from preforkd.worker.wsgi.records import Records

logger = logging.getLogger("preforkd.app")

_LOG_INTERVAL = 60.0
"""Seconds between two log messages about an exhausted spool budget, which clients can cause."""


class Reading:
    """See the module."""

    def __init__(
        self,
        connections: Connections,
        records: Records,
        answering: Answering,
        settings: HttpSettings,
    ) -> None:
        self._connections = connections
        self._records = records
        self._answering = answering
        self._body_timeout = settings.body_timeout
        self._min_rate = settings.min_rate
        self._budget_logged_at = -math.inf

    def take(self, connection: Connection, data: bytes) -> None:
        """Take received bytes; empty: the client has shut down its sending side."""
        connection.engine.receive(data)
        if connection.waiting is Waiting.BODY:
            self._connections.deadlines.set(connection, Waiting.BODY)

    def next_request(self, connection: Connection) -> bool:
        """Take the next complete request in hand; return False if there is none.

        One that cannot be served is refused: the engine has ended then.
        """
        try:
            found = connection.take_request()
        except RequestError as error:
            self.refuse(connection, error.status, str(error))
            return False
        except StorageError as error:
            self._log_storage_error(error)
            self.refuse(connection, "503 Service Unavailable", "the request cannot be stored")
            return False
        if found:
            self._connections.deadlines.clear(connection)
        elif connection.waiting is Waiting.BODY and connection.is_too_slow(
            self._body_timeout, self._min_rate
        ):
            self.refuse(connection, "408 Request Timeout", "the body arrives too slowly")
        return found

    def _log_storage_error(self, error: StorageError) -> None:
        now = time.monotonic()
        if not isinstance(error, BudgetError) or now >= self._budget_logged_at + _LOG_INTERVAL:
            self._budget_logged_at = now
            logger.error("%s", error)  # the disk's fault: no traceback

    def refuse(self, connection: Connection, status: str, reason: str) -> None:
        """Send an error answer of the server's own, after which the connection ends."""

        def send() -> int:
            connection.engine.refused()
            return self._answering.send_error(connection, status, reason)

        # The spooled body first: a disk that it filled has space again before the client retries.
        connection.drop_body()
        self._records.refused(connection, int(status[:3]), send)

    def wait(self, connection: Connection) -> None:
        """Let a connection wait for input: the rest of a body, of a head, or another request."""
        engine = connection.engine
        if engine.client is State.BODY:
            kind = Waiting.BODY
            if engine.wants_continue:
                engine.wants_continue = False
                connection.outbox.send_nowait(CONTINUE)
        elif connection.served and engine.idle:
            kind = Waiting.NEXT_REQUEST
        else:
            kind = Waiting.FIRST_REQUEST
        if connection.waiting is not kind:
            if kind is Waiting.BODY:
                connection.begin_window()
            self._connections.deadlines.set(connection, kind)
        self._connections.register(connection, select.EPOLLIN)
