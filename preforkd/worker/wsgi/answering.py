"""Answers: the application is called for complete requests, in the main thread or in threads of the pool.

``Takeover.loop_lock`` is released around each call in the main thread. A connection whose request is being
answered is touched by nothing else. An application that fails before it sent anything is answered for with
500; one that fails later is cut off, so that its answer does not look complete.
"""

import contextlib
import logging
import math
import time
from typing import IO, Any

from preforkd.apps import wsgi
from preforkd.apps.hooks import Hooks
from preforkd.config.settings import Settings
from preforkd.http.response import Renderer
from preforkd.worker.acceptor import Acceptor
from preforkd.worker.listener_context import CachedHead
from preforkd.worker.wsgi.connection import Connection
from preforkd.worker.wsgi.records import Records
from preforkd.worker.wsgi.response import ClientGoneError, Response
from preforkd.worker.wsgi.takeover import Takeover
from preforkd.worker.wsgi.threads import ThreadPool

logger = logging.getLogger("preforkd.app")

_WILDCARDS = ("0.0.0.0", "[::]")  # noqa: S104 - compared with, not bound


class Answering:
    """See the module."""

    def __init__(
        self,
        acceptor: Acceptor,
        application: Any,
        settings: Settings,
        *,
        records: Records,
        hooks: Hooks | None,
        takeover: Takeover,
    ) -> None:
        http = settings.http
        self.renderer = Renderer(http.server)
        self.takeover = takeover
        threads = settings.workers.threads
        self.pool = (
            ThreadPool(threads, self._answer_in_thread, acceptor.wake, acceptor.slot_writer)
            if threads > 1
            else None
        )
        self._acceptor = acceptor
        self._slot_writer = acceptor.slot_writer
        self._application = application
        self._records = records
        self._hooks = hooks if hooks is not None and hooks.of_requests else None
        self._end_follows = self._hooks is None and self.pool is None
        """A connection that is not kept ends as soon as the application has returned."""
        self._observed = bool(records) or self._hooks is not None
        self._max_requests = (http.max_requests or math.inf) if http.keep_alive else 0
        """Requests of a connection, the last of which is answered with Connection: close."""
        self._current: Connection | None = None
        """The connection whose request, or answer to be closed, is with the application; not in the pool."""
        self._cached_in_slot: CachedHead | None = None
        """The head whose request line the slot shows."""

    @property
    def current(self) -> Connection | None:
        """The connection that belongs to the application now; None: none, or the pool answers."""
        return self._current

    def can_call(self) -> bool:
        """Return whether the application can be called, or a thread of the pool is free."""
        return not self.takeover.active and (self.pool is None or self.pool.free > 0)

    def is_idle(self) -> bool:
        """Return whether no thread of the pool has a request."""
        return self.pool is None or self.pool.idle

    def recover(self) -> None:
        """Make the state consistent after the exception of a signal handler, wherever it was raised."""
        if not self.takeover.active:
            self.takeover.reacquire_after_exception()
            self._current = None
            if self.pool is None:
                self._slot_writer.set_idle()

    # --- in the main thread ----------------------------------------------------------------------

    def answer_request(self, connection: Connection) -> None:
        """Answer the request that a connection has in hand."""
        request, connection.request = connection.request, None
        assert request is not None
        try:
            if request.cached.probe:
                self.answer_probe(connection, request.cached)
            else:
                self.answer(connection, request.cached, request.body, request.length)
        finally:
            request.body.close()

    def answer_probe(self, connection: Connection, cached: CachedHead) -> None:
        """Answer the probe of a health check."""
        acceptor = self._acceptor
        keep = self._keeps(connection, cached)
        leaving = acceptor.retiring or acceptor.drain_announced
        connection.engine.answer_ended(keep)
        connection.outbox.send_nowait(
            self.renderer.probe(
                cached.probe, leaving=leaving, keep=keep, head_only=cached.head_only
            )
        )

    def _keeps(self, connection: Connection, cached: CachedHead) -> bool:
        connection.served += 1
        return (
            cached.keep and connection.served < self._max_requests and not self._acceptor.retiring
        )

    def answer(
        self, connection: Connection, cached: CachedHead, body: IO[bytes], length: int
    ) -> None:
        """Call the application in this thread. Raises ClientGoneError."""
        takeover, slot_writer = self.takeover, self._slot_writer
        if cached is not self._cached_in_slot:
            self._cached_in_slot = cached
            slot_writer.set_request_line(cached.line)
        slot_writer.set_busy()
        self._current = connection
        loop_lock = takeover.loop_lock
        try:
            loop_lock.release()
            self._call(connection, cached, body, length)
        finally:
            if not loop_lock.acquire(False):
                takeover.reacquire()
            self._current = None
            slot_writer.request_done()

    def close_answer(self, connection: Connection) -> None:
        """Let the application close its answer, which is sent or cannot be."""
        self._cached_in_slot = None
        self._current = connection
        with self._slot_writer.busy_outside_request():
            try:
                self.takeover.loop_lock.release()
                self._call_after_sending(connection)
            finally:
                self.takeover.reacquire()
        self._current = None

    def _call_after_sending(self, connection: Connection) -> None:
        close, connection.after_sending = connection.after_sending, None
        assert close is not None
        try:
            close()
        except BaseException as error:
            logger.exception("exception in close() of the application's answer")
            if isinstance(error, SystemExit):
                self._acceptor.retire()

    # --- in a thread of the pool -----------------------------------------------------------------

    def _answer_in_thread(self, connection: Connection) -> None:
        if connection.after_sending is not None:
            self._call_after_sending(connection)
            return
        request = connection.request
        assert request is not None
        try:
            self._call(connection, request.cached, request.body, request.length)
        except ClientGoneError:
            connection.engine.aborted()
        except Exception:
            logger.exception("connection from %s failed", connection.remote)
            connection.engine.aborted()
        finally:
            request.body.close()

    # --- in either -------------------------------------------------------------------------------

    def _call(
        self, connection: Connection, cached: CachedHead, body: IO[bytes], length: int
    ) -> None:
        """Call the application; touches no state of the loop except this connection."""
        outbox = connection.outbox
        response = connection.response = Response(
            connection.engine,
            self.renderer,
            head_only=cached.head_only,
            http11=cached.http11,
            keep=self._keeps(connection, cached),
        )
        response.sink, response.end_follows = outbox, self._end_follows
        outbox.sent = 0
        environ = cached.template.copy()
        if cached.remote is None:
            environ["REMOTE_ADDR"] = connection.remote
            environ["REMOTE_PORT"] = connection.remote_port
        if connection.server_name and environ["SERVER_NAME"] in _WILDCARDS:  # not a proxy's
            environ["SERVER_NAME"] = connection.server_name
        if connection.tls_environ is not None:
            environ.update(connection.tls_environ)
        if length:
            wsgi.set_body(environ, body, length)
        else:
            environ["wsgi.input"] = body
        environ["wsgi.early_hints"] = response.early_hints
        begun = self._begin(environ) if self._observed else 0.0
        try:
            after = wsgi.call(self._application, environ, response)
            if after is not None:
                if outbox.pending:
                    connection.after_sending = after
                else:
                    after()
        except ClientGoneError:
            raise
        except BaseException as error:
            self._on_failure(connection, cached, response, error)
        finally:
            # A reference cycle: only the garbage collector would free it.
            connection.response = None
            if self._observed:
                self._finish(connection, environ, cached, response, begun)

    def _begin(self, environ: wsgi.Environ) -> float:
        if self._hooks is not None:
            self._hooks.call("request_begun", environ)
        return time.monotonic()

    def _finish(
        self,
        connection: Connection,
        environ: wsgi.Environ,
        cached: CachedHead,
        response: Response,
        begun: float,
    ) -> None:
        # 500 was sent if the application failed before it sent anything.
        status = response.code if response.head_sent else 500
        if self._hooks is not None:
            self._hooks.call("request_ended", environ, status)
        seconds = time.monotonic() - begun
        self._records.answered(connection, cached, status, response.length, seconds)

    def _on_failure(
        self, connection: Connection, cached: CachedHead, response: Response, error: BaseException
    ) -> None:
        target = cached.head.target.decode("latin-1")
        when = ", after its answer" if response.complete else ""
        logger.error(
            "the application failed on %s %s%s", cached.head.method, target, when, exc_info=error
        )
        if isinstance(error, SystemExit):
            # The application requests the exit of this process; other workers continue.
            self._acceptor.retire()
        if response.complete:
            return
        if response.head_sent:
            raise ClientGoneError("the answer ends where the application failed")
        connection.engine.refused()
        response.length = self.send_error(
            connection, "500 Internal Server Error", "the application failed"
        )

    def send_error(self, connection: Connection, status: str, reason: str) -> int:
        """Send an answer of the server's own; return the length of its body. Raises ClientGoneError."""
        parsed = connection.engine.parsed
        head_only = parsed is not None and parsed.head_only
        answer = self.renderer.plain_error(status, reason, head_only=head_only)
        connection.outbox.send_nowait(answer)
        return len(answer.partition(b"\r\n\r\n")[2])

    # --- a request that takes too long -----------------------------------------------------------

    def answer_overdue(self) -> None:
        """Answer an overdue request with 504; the master kills this process next."""
        connection = self._current if self.pool is None else self.pool.oldest
        if connection is None or (response := connection.response) is None:
            return
        if connection.secure is None and not response.head_sent:
            with contextlib.suppress(ClientGoneError):
                text = "the application took too long"
                response.length = self.send_error(connection, "504 Gateway Timeout", text)
                # Bytes that the application still sends would follow a complete answer.
                connection.shutdown_write()
        request = connection.request
        cached = self._cached_in_slot if request is None else request.cached
        if cached is not None:
            status = response.code if response.head_sent else 504
            since = self._slot_writer.busy_since_ns() / 1e9
            self._records.overdue(connection, cached, status, response.length, since)
