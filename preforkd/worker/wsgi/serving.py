"""One connection from its input to its answer and back: what follows each event.

`Serving.read` is the common case, in as few calls as possible: a request that arrives in one piece on an idle
connection is recognized by its bytes and answered. `Serving.advance` is every other one.
"""

import contextlib
import io
import logging
import select
import socket
import time
from collections.abc import Callable
from typing import IO

from preforkd.http.proxy_header import ProxyHeaderError
from preforkd.http.states import State
from preforkd.worker.acceptor import Acceptor
from preforkd.worker.interruption import comes_from_application, retire_after
from preforkd.worker.listener_context import CachedHead
from preforkd.worker.wsgi.answering import Answering
from preforkd.worker.wsgi.connection import FIRST_RECEIVE, Connection, Waiting
from preforkd.worker.wsgi.connections import Connections
from preforkd.worker.wsgi.handoff import Handoff
from preforkd.worker.wsgi.reading import Reading
from preforkd.worker.wsgi.records import Records
from preforkd.worker.wsgi.response import ClientGoneError

logger = logging.getLogger("preforkd.app")

_BURST = 16
"""Pipelined requests of one connection that are answered before other connections get a turn."""
_LONGEST_HOLD = 0.001
"""Seconds after which the answers of a turn are sent, while further ones of the turn are made."""
_OUT = select.EPOLLOUT
_IDLE, _MUST_CLOSE, _NEXT_REQUEST = State.IDLE, State.MUST_CLOSE, Waiting.NEXT_REQUEST


class Serving:
    """See the module. ``handoff``: the queue to other workers; None: there is none."""

    def __init__(
        self,
        acceptor: Acceptor,
        connections: Connections,
        *,
        records: Records,
        answering: Answering,
        reading: Reading,
        handoff: Handoff | None,
    ) -> None:
        self._acceptor = acceptor
        self._connections = connections
        self._records = records
        self._answering = answering
        self._reading = reading
        self._handoff = handoff
        self._deadlines = connections.deadlines
        self._takeover = answering.takeover
        self._pool = answering.pool
        self.holds = False
        """Further requests of this turn follow: answers to the common case are held back, see `send_held`."""
        self._held: list[Connection] = []
        self._held_since = 0.0

    # --- errors ----------------------------------------------------------------------------------

    def guarded(
        self, step: Callable[..., object], connection: Connection, *arguments: object
    ) -> None:
        """Call a step for a connection; an error ends the connection that it occurred on, and no other."""
        try:
            step(connection, *arguments)
        except BaseException as error:
            self.fail(connection, error)

    def fail(self, connection: Connection, error: BaseException) -> None:
        """Close a connection after an error; retire if the application raised it outside a request."""
        client = isinstance(error, (ClientGoneError, ProxyHeaderError))
        if not client and comes_from_application(error):
            # The state of this connection is unknown.
            retire_after(error, self._acceptor)
            self._answering.recover()
        elif client or isinstance(error, OSError):
            logger.debug("connection from %s: %s", connection.remote, error)
        else:
            logger.error("connection from %s failed", connection.remote, exc_info=error)
        with contextlib.suppress(Exception):
            if connection.outbox.held:
                connection.outbox.flush()
        with contextlib.suppress(Exception):
            self._connections.close(connection)

    # --- the common case -------------------------------------------------------------------------

    def read(self, connection: Connection) -> None:
        """Receive on a connection without a request in progress; answer what has arrived."""
        try:
            data = connection.sock.recv(FIRST_RECEIVE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._reading.wait(connection)
            return
        if self._pool is None and not self._takeover.active:
            cached = connection.context.complete_head(data)
            if cached is not None and cached.complete:
                self._answer(connection, cached, io.BytesIO(), 0)
                return
            if cached is None and connection.secure is None:
                rest = self._read_with_body(connection, data)
                if rest is None:
                    return
                data = rest
        self._reading.take(connection, data)
        self.advance(connection, more=len(data) == FIRST_RECEIVE)

    def _read_with_body(self, connection: Connection, data: bytes) -> bytes | None:
        """Answer a request whose body has arrived; if it has not, return the bytes that have."""
        found = connection.context.head_with_body(data)
        if found is None:
            return data
        cached, start = found
        length, here = cached.head.length, len(data) - start
        if here == length:
            self._answer(connection, cached, io.BytesIO(data[start:]), length)
            return None
        if len(data) < FIRST_RECEIVE:
            return data
        # The body is received into the buffer that the application reads.
        body = io.BytesIO(bytes(length))
        with body.getbuffer() as view:
            view[:here] = data[start:]
            arrived = connection.receive_into(view[here:])
            if arrived < length - here:
                return data + view[here : here + arrived]
        self._answer(connection, cached, body, length)
        return None

    def _answer(
        self, connection: Connection, cached: CachedHead, body: IO[bytes], length: int
    ) -> None:
        engine, outbox = connection.engine, connection.outbox
        engine.take_whole(cached)
        outbox.holds = (
            self.holds and connection.waiting is _NEXT_REQUEST and connection.secure is None
        )
        try:
            self._answering.answer(connection, cached, body, length)
        finally:
            outbox.holds = False
        client = engine.client
        if outbox.held and client is _IDLE:
            self._deadlines.set(connection, _NEXT_REQUEST)
            self._hold(connection)
            return
        if outbox.held:
            outbox.flush()
        if outbox.pending or connection.secure is not None:
            self.advance(connection)
        elif client is _IDLE and connection.waiting is _NEXT_REQUEST:
            self._deadlines.set(connection, _NEXT_REQUEST)  # its timeout begins again
        elif client is _MUST_CLOSE:
            self._connections.end(connection)
        else:
            self.advance(connection)

    # --- answers of one turn ---------------------------------------------------------------------

    def _hold(self, connection: Connection) -> None:
        now = time.monotonic()
        if not self._held:
            self._held_since = now
        self._held.append(connection)
        if now >= self._held_since + _LONGEST_HOLD:
            self.send_held()

    def send_held(self) -> None:
        """Send the answers that are held back.

        A send wakes the client and displaces the application's code from the caches of the CPU: between two
        requests of one turn it costs more than behind both.
        """
        held, self._held = self._held, []
        for connection in held:
            self.guarded(self._send_held, connection)

    def _send_held(self, connection: Connection) -> None:
        connection.outbox.flush()
        if connection.outbox.pending:
            self.advance(connection)
        elif self._records:
            self._records.sent(connection)

    # --- every case ------------------------------------------------------------------------------

    def on_event(self, connection: Connection) -> None:
        """Handle an event of a connection's socket."""
        waiting = connection.waiting
        if waiting is None:
            return  # an event from before the connection was suspended
        if waiting is Waiting.CLOSE:
            if connection.receive() == b"":  # until then, input is discarded
                self._connections.close(connection)
            return
        if connection.outbox.pending:
            if connection.outbox.flush():
                self._connections.wait(connection, Waiting.WRITE, _OUT)
            if not connection.outbox.pending:
                self._records.sent(connection)
        elif waiting is not Waiting.BODY and connection.engine.idle:
            self.read(connection)
            return
        elif (data := connection.receive()) is not None:
            self._reading.take(connection, data)
        self.advance(connection)

    def advance(self, connection: Connection, *, more: bool = False) -> None:
        """Answer the complete requests of a connection, then let it wait for its next event.

        ``more``: the last receive filled its buffer, so that there is probably more.
        """
        answered = 0
        while True:
            if connection.unfinished and not self._finish_answer(connection):
                return
            if connection.request is None and not self._reading.next_request(connection):
                if connection.outbox.pending:
                    continue
                if connection.engine.ended:
                    self._connections.end(connection)
                    return
                if more or connection.has_decrypted():
                    more = False
                    if (data := connection.receive()) is not None:
                        self._reading.take(connection, data)
                        continue
                self._reading.wait(connection)
                return
            if answered >= _BURST or not self._answering.can_call():
                self._defer(connection)
                return
            if self._pool is not None:
                self._connections.suspend(connection)
                self._pool.submit(connection)
                return
            self._answering.answer_request(connection)
            answered += 1

    def _finish_answer(self, connection: Connection) -> bool:
        """Wait until an answer is sent, then let the application close it; return whether both are done."""
        if connection.outbox.pending:
            if connection.waiting is not Waiting.WRITE:
                self._connections.wait(connection, Waiting.WRITE, _OUT)
            return False
        if not self._answering.can_call():
            self._connections.suspend(connection)
            self._connections.ready.append(connection)
            return False
        return self.close_answer(connection)

    def close_answer(self, connection: Connection) -> bool:
        """Let the application close an answer; return False if a thread does, which owns the connection."""
        if self._pool is None:
            self._answering.close_answer(connection)
            return True
        self._connections.suspend(connection)
        self._pool.submit(connection)
        return False

    def _defer(self, connection: Connection) -> None:
        """Hand a complete request to another worker, or queue it until the application is free."""
        if (
            self._handoff is not None
            and not self._answering.can_call()
            and self._handoff.give(connection)
        ):
            self._connections.close(connection)
            return
        self._connections.suspend(connection)
        self._connections.ready.append(connection)

    def on_answered(self, connection: Connection) -> None:
        """Continue with a connection that a thread of the pool gives back."""
        connection.request = None
        if connection.closed:
            self._connections.close(connection)
        else:
            self.advance(connection)

    # --- time ------------------------------------------------------------------------------------

    def on_deadline(self, connection: Connection, kind: Waiting) -> None:
        """End a connection that waited for too long for this; a client that reads slowly goes on."""
        outbox = connection.outbox
        if kind is Waiting.NEXT_REQUEST:
            self.close_idle(connection)
            return
        if kind is Waiting.WRITE:
            if outbox.has_progressed():
                self._connections.wait(connection, Waiting.WRITE, _OUT)
                return
            outbox.reset_on_close()
        elif kind in {Waiting.FIRST_REQUEST, Waiting.BODY} and not connection.engine.idle:
            self._reading.refuse(connection, "408 Request Timeout", "the request did not arrive")
            if not outbox.pending:
                self._connections.end(connection)
                return
        self._connections.close(connection)

    def close_idle(self, connection: Connection) -> None:
        """Close an idle connection; a request that has just arrived is answered, not reset."""
        data = connection.receive()
        if data:
            self._reading.take(connection, data)
            self.advance(connection)
        else:
            self._connections.close(connection)
