"""The WSGI worker: one request at a time in the application, any number of connections outside it.

A request reaches the application when it is complete, and what the client does not take of the answer
is sent in the background: slow clients and idle connections occupy nobody. While the application
runs this worker neither accepts nor reads; the kernel gives new connections to workers that are idle.
Connections that this worker holds are served before new ones are accepted.
"""

import logging
import select
import time
from typing import Any

from preforkd.apps import wsgi
from preforkd.config.settings import Settings
from preforkd.http.request import Bounds, Request, RequestError
from preforkd.http.response import CONTINUE, ClientGoneError, Response, plain_error
from preforkd.worker.access import Answered, open_access_log
from preforkd.worker.connection import Connection, Waiting
from preforkd.worker.gate import Gate

logger = logging.getLogger("preforkd.app")

_GOODBYE = 2.0
"""Seconds for a client to take an answer that was given before it had sent everything."""


class HttpLoop:
    """Serves one WSGI application; raises SystemFailure when the access log cannot be opened."""

    def __init__(self, gate: Gate, application: Any, settings: Settings) -> None:
        http = settings.http
        self._gate = gate
        self._application = application
        self._access = open_access_log(settings.access_log)
        self._most = http.connections
        self._keep_alive = http.keep_alive
        self._bounds = Bounds(http.max_header, http.max_body, http.spool)
        self._write_patience = http.body_timeout
        self._connections: dict[int, Connection] = {}
        self._patience = {
            Waiting.FIRST_REQUEST: http.header_timeout,
            Waiting.BODY: http.body_timeout,
            Waiting.NEXT_REQUEST: http.keep_alive,
            Waiting.WRITE: http.body_timeout,
            Waiting.GOODBYE: _GOODBYE,
        }
        # All that wait for the same thing may wait equally long, so each dictionary is in the order
        # of its deadlines.
        self._deadlines: dict[Waiting, dict[Connection, float]] = {kind: {} for kind in Waiting}
        self._leaving_since: float | None = None

    def run(self) -> None:
        """Serve until the worker is to leave, and what had arrived was answered."""
        gate = self._gate
        while True:
            if gate.retiring:
                self._leave()
                if not self._connections:
                    return
            elif len(self._connections) >= self._most:
                gate.shut()
            else:
                gate.open()
            self._expire()
            listeners = []
            for descriptor, events in gate.poll(self._timeout()):
                connection = self._connections.get(descriptor)
                if connection is not None:
                    self._guarded(self._attend, connection, events)
                elif gate.is_listener(descriptor):
                    listeners.append(descriptor)
            for descriptor in listeners:
                if not gate.retiring and len(self._connections) < self._most:
                    self._accept(descriptor)

    # --- connections -----------------------------------------------------------------------------

    def _accept(self, descriptor: int) -> None:
        accepted = self._gate.accept(descriptor)
        if accepted is None:
            return
        connection = Connection(accepted.sock, accepted.peer, self._bounds, self._write_patience)
        self._connections[connection.fd] = connection
        self._gate.board.connections(len(self._connections))
        self._wait(connection, Waiting.FIRST_REQUEST)
        # Its request is mostly there already; if not, it is waited for.
        self._guarded(self._attend, connection, select.EPOLLIN)

    def _guarded(self, step: Any, connection: Connection, *arguments: Any) -> None:
        # Whatever goes wrong with one connection ends that one.
        try:
            step(connection, *arguments)
        except ClientGoneError as error:
            logger.debug("connection from %s: %s", connection.peer, error)
            self._close(connection)
        except SystemExit:
            raise
        except Exception:
            logger.exception("connection from %s failed", connection.peer)
            self._close(connection)

    def _attend(self, connection: Connection, events: int) -> None:
        if connection.waiting is Waiting.GOODBYE:
            if connection.receive() == b"":  # until then, what comes is read away
                self._close(connection)
            return
        if connection.pending:
            if connection.flush():
                self._wait(connection, Waiting.WRITE)
        elif events & ~select.EPOLLOUT:
            self._read(connection)
        self._go_on(connection)

    def _read(self, connection: Connection) -> None:
        data = connection.receive()
        if data is None:
            return
        if not data:
            connection.leaving = True
            return
        parser = connection.parser
        try:
            parser.feed(data)
        except RequestError as error:
            # What is complete before the nonsense is still answered.
            self._answer_all(connection)
            connection.send_last(plain_error(error.status, error.reason))
            connection.leaving = connection.unread = True
            return
        if parser.wants_continue and not parser.ready:
            parser.wants_continue = False
            connection.send_last(CONTINUE)
        if parser.in_body:
            self._wait(connection, Waiting.BODY)
        elif parser.started and connection.waiting is not Waiting.FIRST_REQUEST:
            self._wait(connection, Waiting.FIRST_REQUEST)

    def _go_on(self, connection: Connection) -> None:
        """Answer what is complete, then wait for what comes next."""
        self._answer_all(connection)
        if connection.pending:
            if connection.waiting is not Waiting.WRITE:
                self._wait(connection, Waiting.WRITE)
            self._register(connection, select.EPOLLOUT)
            return
        if connection.leaving:
            self._end(connection)
            return
        if connection.waiting is Waiting.WRITE or (
            connection.served and not connection.parser.started
        ):
            self._wait(connection, Waiting.NEXT_REQUEST)
        self._register(connection, select.EPOLLIN)

    def _register(self, connection: Connection, events: int) -> None:
        if connection.registered == events:
            return
        if connection.registered:
            self._gate.epoll.modify(connection.fd, events)
        else:
            self._gate.epoll.register(connection.fd, events)
        connection.registered = events

    def _end(self, connection: Connection) -> None:
        if not connection.unread or connection.waiting is Waiting.GOODBYE:
            self._close(connection)
            return
        connection.say_goodbye()
        self._wait(connection, Waiting.GOODBYE)
        connection.leaving = False
        self._register(connection, select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        self._deadlines[connection.waiting].pop(connection, None)
        if self._connections.pop(connection.fd, None) is None:
            return
        if connection.registered:
            # Closing is not enough where a child of the application has inherited the socket.
            self._gate.epoll.unregister(connection.fd)
        connection.sock.close()
        for request in connection.parser.ready:
            request.body.close()
        self._gate.board.connections(len(self._connections))

    # --- requests --------------------------------------------------------------------------------

    def _answer_all(self, connection: Connection) -> None:
        ready = connection.parser.ready
        while ready and not connection.pending and not connection.leaving:
            request = ready.popleft()
            try:
                self._answer(connection, request)
            finally:
                request.body.close()
        if connection.leaving and ready:
            connection.unread = True

    def _answer(self, connection: Connection, request: Request) -> None:
        gate = self._gate
        keep = request.keep_alive and self._keep_alive > 0 and not gate.retiring
        response = Response(connection, method=request.method, version=request.version, keep=keep)
        environ = wsgi.environ_for(request, connection.base_environ)
        begun = time.monotonic()
        gate.board.busy()
        try:
            wsgi.call(self._application, environ, response)
        except ClientGoneError:
            raise
        except (Exception, SystemExit) as error:
            self._application_failed(connection, request, response, error)
        finally:
            gate.board.idle()
            if self._access is not None:
                self._log_access(connection, request, response, time.monotonic() - begun)
        connection.served += 1
        if not response.keep:
            connection.leaving = True

    def _log_access(
        self, connection: Connection, request: Request, response: Response, seconds: float
    ) -> None:
        assert self._access is not None
        remote = str(connection.base_environ["REMOTE_ADDR"])
        # 500 is what the client was told when the application failed before it said anything.
        status = response.code if response.head_sent else 500
        self._access(Answered(remote, request, status, response.length, seconds))

    def _application_failed(
        self, connection: Connection, request: Request, response: Response, error: BaseException
    ) -> None:
        target = request.target.decode("latin-1")
        logger.error("the application failed on %s %s", request.method, target, exc_info=error)
        if isinstance(error, SystemExit):
            # It asks for the end of this process: others go on.
            self._gate.leave()
        response.keep = False
        if response.head_sent:
            raise ClientGoneError("the answer is cut off where the application failed")
        connection.send_last(plain_error("500 Internal Server Error", "the application failed"))

    # --- time ------------------------------------------------------------------------------------

    def _wait(self, connection: Connection, kind: Waiting) -> None:
        self._deadlines[connection.waiting].pop(connection, None)
        connection.waiting = kind
        self._deadlines[kind][connection] = time.monotonic() + self._patience[kind]

    def _timeout(self) -> float | None:
        """Return the seconds until the first deadline; None when nothing is waited for."""
        firsts = [next(iter(waiting.values())) for waiting in self._deadlines.values() if waiting]
        if self._leaving_since is not None and self._deadlines[Waiting.NEXT_REQUEST]:
            firsts.append(self._leaving_since + self._gate.linger)
        return max(0.0, min(firsts) - time.monotonic()) if firsts else None

    def _expire(self) -> None:
        now = time.monotonic()
        for kind, waiting in self._deadlines.items():
            late = []
            for connection, deadline in waiting.items():
                if deadline > now:
                    break
                late.append(connection)
            for connection in late:
                self._guarded(self._give_up, connection, kind)

    def _give_up(self, connection: Connection, kind: Waiting) -> None:
        if kind is Waiting.NEXT_REQUEST:
            self._part_from_idle(connection)
            return
        if kind in {Waiting.FIRST_REQUEST, Waiting.BODY} and connection.parser.started:
            connection.send_last(plain_error("408 Request Timeout", "the request did not arrive"))
            connection.leaving = connection.unread = True
            self._end(connection)
            return
        self._close(connection)

    def _part_from_idle(self, connection: Connection) -> None:
        # A request that has just arrived is answered rather than reset.
        self._read(connection)
        if connection.parser.started or connection.parser.ready:
            self._go_on(connection)
        else:
            self._close(connection)

    def _leave(self) -> None:
        """Part from connections that are idle; those from which a request is due are served first."""
        now = time.monotonic()
        if self._leaving_since is None:
            self._leaving_since = now
        if now >= self._leaving_since + self._gate.linger:
            for connection in list(self._deadlines[Waiting.NEXT_REQUEST]):
                self._guarded(self._part_from_idle, connection)
