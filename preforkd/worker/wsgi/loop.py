"""The WSGI loop: one request at a time in the application, any number of connections outside it.

A request reaches the application when it is complete, and an answer that the client does not take at once
is sent in the background: slow clients and idle connections occupy no worker. While the application runs,
this worker does not accept; the kernel gives new connections to idle workers. If the application runs for
long, the takeover thread runs the loop and hands complete requests to other workers. Connections that this
worker holds are served before new ones are accepted.
"""

import contextlib
import io
import logging
import math
import os
import select
import socket
import threading
import time
from collections import deque
from typing import IO, Any

from msgspec.structs import replace

from preforkd.apps import wsgi
from preforkd.apps.hooks import Hooks
from preforkd.config.settings import Settings
from preforkd.http.body import BudgetError, StorageError
from preforkd.http.engine import HttpEngine
from preforkd.http.forwarded import Trust
from preforkd.http.head import Budget, RequestError, unparsed_head
from preforkd.http.proxy_header import ProxyHeader, ProxyHeaderError
from preforkd.http.request import Request
from preforkd.http.response import CONTINUE, Renderer
from preforkd.ipc.handoff import HandedConnection, HandoffQueue, ReceivedConnection, as_file, fits
from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, CompletedRequest, open_access_log
from preforkd.worker.acceptor import Acceptor
from preforkd.worker.deadlines import Deadlines
from preforkd.worker.interruption import comes_from_application, retire_after, retire_if_interrupted
from preforkd.worker.listener_context import Build, CachedHead, Endpoint, HttpListener
from preforkd.worker.tls import TlsSocket
from preforkd.worker.wsgi.connection import FIRST_RECEIVE, Connection, OutputLimits, Waiting
from preforkd.worker.wsgi.response import ClientGoneError, Response
from preforkd.worker.wsgi.takeover import Takeover
from preforkd.worker.wsgi.threads import ThreadPool

logger = logging.getLogger("preforkd.app")

_CLOSE_TIMEOUT = 2.0
"""Seconds of a lingering close: input is discarded, so that a reset does not destroy the answer."""
_SPOOLED_BODIES = 4
"""Bodies of ``http.max_body`` that a worker may spool at once, where ``http.spool_total`` is 0."""
_SPOOLED_ANSWERS = 16
"""Answers of ``http.answer_spool`` that a worker may spool at once."""
_LOG_INTERVAL = 60.0
"""Seconds between two log messages about an exhausted spool budget, which clients can cause."""
_BURST = 16
"""Pipelined requests of one connection that are answered before other connections get a turn."""
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class WsgiLoop:
    """Serves one WSGI application.

    Raises SystemFailure when the access log cannot be opened, ConfigurationError for a certificate
    that cannot be used.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        application: Any,
        settings: Settings,
        handoff: HandoffQueue | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        http = settings.http
        self.trust = Trust(settings.proxy.trusted)
        self._output = OutputLimits(
            write_timeout=http.body_timeout,
            min_rate=http.min_rate,
            spool=http.answer_spool,
            budget=Budget(files=_SPOOLED_ANSWERS * http.answer_spool),
        )
        self._budget_logged_at = -math.inf
        self._acceptor = acceptor
        self._slot_writer = acceptor.slot_writer
        self._application = application
        self._handoff = handoff
        self._access = open_access_log(settings.access_log)
        self._hooks = hooks if hooks is not None and hooks.of_requests else None
        self._observed = self._access is not None or self._hooks is not None
        self._renderer = Renderer(http.server)
        self._max_connections = http.connections
        self._keep_alive = http.keep_alive > 0
        self._max_requests = http.max_requests or math.inf
        self._min_rate = http.min_rate
        threads = settings.workers.threads
        budget = Budget(files=http.spool_total or _SPOOLED_BODIES * http.max_body)

        def make_build(endpoint: Endpoint) -> Build:
            return wsgi.environ_builder(
                wsgi.server_name(endpoint.host),
                endpoint.port,
                secure=endpoint.secure,
                threads=threads > 1,
            )

        self._http_listeners = {
            listener.sock.fileno(): HttpListener(
                index, listener, settings, make_build, trust=self.trust, budget=budget
            )
            for index, listener in enumerate(acceptor.listeners)
        }
        self._by_index = list(self._http_listeners.values())
        self._connections: dict[int, Connection] = {}
        self._ready: deque[Connection] = deque()
        """Connections with a complete request, or an answer to close, that wait for the application."""
        timeouts = {
            Waiting.HANDSHAKE: http.header_timeout,
            Waiting.FIRST_REQUEST: http.header_timeout,
            Waiting.BODY: http.body_timeout,
            Waiting.NEXT_REQUEST: http.keep_alive,
            Waiting.WRITE: http.body_timeout,
            Waiting.CLOSE: _CLOSE_TIMEOUT,
        }
        self._body_timeout = http.body_timeout
        self._deadlines: Deadlines[Connection, Waiting] = Deadlines(timeouts)
        self._idle = self._deadlines.of(Waiting.NEXT_REQUEST)
        self._pid = os.getpid()
        self._draining_since: float | None = None
        self._turn = 0
        self._woken_for: list[int] = []
        """Listeners, and the handoff queue, for which the kernel woke this worker and no other."""
        self._current: Connection | None = None
        self._taken_over = False
        """The takeover thread runs the loop, while the application blocks the main thread."""
        self._cached_in_slot: CachedHead | None = None
        """The head whose request line the slot shows."""
        self._takeover = self._new_takeover()
        self._thread_pool = (
            ThreadPool(threads, self._answer_in_thread, acceptor.wake, acceptor.slot_writer)
            if threads > 1
            else None
        )
        acceptor.on_overdue = self._answer_overdue
        if handoff is not None:
            acceptor.add_source(handoff.fileno())

    def run(self) -> None:
        """Serve until the worker retires and the requests that had arrived are answered."""
        self._takeover.reacquire()
        while True:
            if self._acceptor.pending_refork is not None and self._is_idle():
                self._fork_zygote()
            try:
                if not self._run_once():
                    break
            except BaseException as error:
                retire_if_interrupted(error, self._acceptor, self._pid)
                self._recover()
        self._takeover.end()
        if self._thread_pool is not None:
            self._thread_pool.stop()
        if self._access is not None:
            self._access.flush()

    def _run_once(self) -> bool:
        """Run one turn of the loop; return False when the worker retires and has no connection left."""
        acceptor = self._acceptor
        if acceptor.retiring:
            self._close_idle_connections()
            self._on_sources_ready()
            if not self._connections and not self._ready:
                # One from the handoff queue may be answered at once: there is no event to wait for then.
                return self._take_remaining_handoff()
        elif self._has_room():
            acceptor.enable()
        else:
            acceptor.disable()
        self._poll()
        for _ in range(len(self._ready)):
            if not self._can_call():
                break
            # Deferred while the application ran, or when other connections had their turn.
            connection = self._ready.popleft()
            if not connection.closed:
                self._guarded(self._advance, connection)
            elif connection.after_sending is not None:
                self._guarded(self._close_response, connection)
        return True

    def _recover(self) -> None:
        # After the exception of a signal handler, wherever it was raised.
        if not self._taken_over:
            self._takeover.reacquire_after_exception()
            self._current = None
            if self._thread_pool is None:
                self._slot_writer.set_idle()

    def _new_takeover(self) -> Takeover:
        return Takeover(lambda: self._turn, self._run_loop, self._acceptor.wake)

    def _is_idle(self) -> bool:
        return self._thread_pool is None or self._thread_pool.idle

    def _fork_zygote(self) -> None:
        # Threads do not exist in the forked process, and locks that they held would stay locked.
        self._takeover.end()
        self._takeover = self._new_takeover()
        self._takeover.reacquire()
        if self._thread_pool is not None:
            self._thread_pool.stop()
        try:
            self._acceptor.fork_zygote()
        except BaseException:
            # In the zygote: the connections belong to the worker.
            for connection in self._connections.values():
                connection.close_after_fork()
            raise

    def descriptors(self) -> list[int]:
        """Return the connections and handoff descriptors, which are closed in a child of the application."""
        # Only the forking thread exists in the child; the owner of the lock may not.
        self._takeover.loop_lock = threading.RLock()
        handoff = self._handoff.descriptors() if self._handoff is not None else ()
        return [*self._connections, *handoff]

    def _has_room(self) -> bool:
        if self._acceptor.pending_refork is not None:
            return False  # until the threads have answered their requests
        return len(self._connections) < self._max_connections and (
            self._thread_pool is None or self._thread_pool.free > 0
        )

    def _can_call(self) -> bool:
        return not self._taken_over and (self._thread_pool is None or self._thread_pool.free > 0)

    def _poll(self) -> None:
        """Wait for events and handle them: first the held connections, then new ones."""
        acceptor = self._acceptor
        connections = self._connections
        if self._access is not None:
            self._access.flush()
        events = acceptor.poll(self._timeout())
        self._turn += 1
        # Recorded first: the application may block this worker in the calls below.
        self._woken_for = [descriptor for descriptor, _ in events if descriptor not in connections]
        for descriptor, event in events:
            connection = connections.get(descriptor)
            if connection is None:
                continue
            try:
                self._on_event(connection, event)
            except BaseException as error:
                self._on_error(connection, error)
        if self._thread_pool is not None:
            while (connection := self._thread_pool.take_answered()) is not None:
                self._guarded(self._on_answered, connection)
        if self._woken_for:
            self._on_sources_ready()
        if time.monotonic() >= self._deadlines.soonest:
            self._expire()

    def _on_sources_ready(self) -> None:
        # Connections in the handoff queue were accepted before those in a backlog, which are left for
        # the next turn if there is one. No other worker was woken for them.
        handoff = self._handoff.fileno() if self._handoff is not None else -1
        while self._woken_for:
            if handoff in self._woken_for:
                self._woken_for.remove(handoff)
                if self._take_handed() and self._has_room() and not self._acceptor.retiring:
                    return
            else:
                self._accept(self._woken_for.pop(0))

    # --- the beginning of a connection -----------------------------------------------------------

    def _accept(self, descriptor: int) -> None:
        accepted = self._acceptor.accept(descriptor)
        if accepted is None:
            return
        connection = None
        try:
            http_listener = self._http_listeners[descriptor]
            remote, port = "", ""
            if accepted.peer.__class__ is tuple:  # not a Unix socket
                remote, port = accepted.peer[0], str(accepted.peer[1])
            trusted = bool(self.trust) and self.trust.trusts(remote)
            context = http_listener.contexts[trusted]
            connection = Connection(accepted.sock, context, self._output, remote, port)
            self._add_connection(connection)
            if http_listener.proxy_protocol or http_listener.tls is not None:
                if http_listener.proxy_protocol and not trusted:
                    peer = remote or "unix"
                    logger.warning("connection from %s refused: not in proxy.trusted", peer)
                    self._close(connection)
                    return
                begin = (
                    self._proxy_handshake if http_listener.proxy_protocol else self._tls_handshake
                )
                connection.handshake = begin(connection, http_listener)
                self._wait(connection, Waiting.HANDSHAKE)
            # The request has mostly arrived with the connection.
            self._on_event(connection, _IN)
        except BaseException as error:
            # An error of the client ends its connection only.
            if connection is None:
                accepted.sock.close()
                raise
            self._on_error(connection, error)

    def _add_connection(self, connection: Connection) -> None:
        self._connections[connection.fd] = connection
        self._acceptor.slot_writer.set_connections(len(self._connections))

    def _proxy_handshake(self, connection: Connection, http_listener: HttpListener) -> Any:
        header = ProxyHeader()
        sock: Any = connection.sock

        def step() -> bool:
            while not header.done:
                try:
                    count = header.peek(sock.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT))
                    data = sock.recv(count, socket.MSG_DONTWAIT) if count else b""
                except BlockingIOError:
                    return False
                if not data:
                    raise ClientGoneError("the proxy left within its header")
                header.take(data)
            if header.source is not None:
                connection.remote, connection.remote_port = header.source
                inner = self.trust.trusts(connection.remote)
                connection.context = http_listener.contexts[inner]
            if http_listener.tls is not None:
                connection.handshake = self._tls_handshake(connection, http_listener)
                return bool(connection.handshake())
            return True

        return step

    def _tls_handshake(self, connection: Connection, http_listener: HttpListener) -> Any:
        assert http_listener.tls is not None
        secure = TlsSocket(connection.sock, http_listener.tls)  # type: ignore[arg-type]
        connection.sock = secure
        connection.plain = False

        def step() -> bool:
            done = secure.handshake()
            self._register(connection, _OUT if secure.wants_write else _IN)
            return done

        return step

    # --- events ----------------------------------------------------------------------------------

    def _guarded(self, step: Any, connection: Connection, *arguments: Any) -> None:
        # An error ends the connection that it occurred on, and no other.
        try:
            step(connection, *arguments)
        except BaseException as error:
            self._on_error(connection, error)

    def _on_error(self, connection: Connection, error: BaseException) -> None:
        client = isinstance(error, (ClientGoneError, ProxyHeaderError))
        if not client and comes_from_application(error):
            # The state of this connection is unknown.
            retire_after(error, self._acceptor)
            self._recover()
        elif client or isinstance(error, OSError):
            logger.debug("connection from %s: %s", connection.remote, error)
        else:
            logger.error("connection from %s failed", connection.remote, exc_info=error)
        with contextlib.suppress(Exception):
            self._close(connection)

    def _on_event(self, connection: Connection, events: int) -> None:
        if connection.idle and events == _IN:
            # The common case: a request in one piece, without a body.
            try:
                data = connection.sock.recv(FIRST_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait_for_input(connection)
                return
            if self._thread_pool is None and not self._taken_over:
                cached = connection.context.complete_head(data)
                if cached is not None and cached.complete:
                    self._answer_directly(connection, cached, io.BytesIO(), 0)
                    return
                if cached is None:
                    rest = self._with_body(connection, data)
                    if rest is None:
                        return
                    data = rest
            connection.maybe_more = len(data) == FIRST_RECEIVE
            self._received(connection, data)
            return
        self._on_event_general(connection)

    def _with_body(self, connection: Connection, data: bytes) -> bytes | None:
        """Answer a request whose body has arrived; if it has not, return the bytes that have."""
        found = connection.context.head_with_body(data)
        if found is None:
            return data
        cached, start = found
        length, here = cached.head.length, len(data) - start
        if here == length:
            self._answer_directly(connection, cached, io.BytesIO(data[start:]), length)
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
        self._answer_directly(connection, cached, body, length)
        return None

    def _answer_directly(
        self, connection: Connection, cached: CachedHead, body: IO[bytes], length: int
    ) -> None:
        self._answer(connection, cached, body, length)
        if (
            connection.closing
            or connection.pending
            or connection.waiting is not Waiting.NEXT_REQUEST
            or connection.registered != _IN
            or not connection.plain
        ):
            self._advance(connection)
            return
        # The state stays the same, and its timeout begins again.
        self._deadlines.set(connection, Waiting.NEXT_REQUEST)

    def _on_event_general(self, connection: Connection) -> None:
        waiting = connection.waiting
        if waiting is None and (connection.request or connection.after_sending):
            return  # an event from before the connection was suspended
        if waiting is Waiting.CLOSE:
            if connection.receive() == b"":  # until then, input is discarded
                self._close(connection)
            return
        if connection.handshake is not None:
            if not connection.handshake():
                self._register(connection, connection.registered or _IN)
                return
            connection.handshake = None
            self._wait_for_input(connection)
        if connection.pending:
            if connection.flush():
                self._wait(connection, Waiting.WRITE)
            if not connection.pending:
                self._log_last(connection)
        else:
            data = connection.receive()
            if data is None:
                self._wait_for_input(connection)
                return
            self._received(connection, data)
            return
        self._advance(connection)

    def _received(self, connection: Connection, data: bytes) -> None:
        if not data:
            if not connection.between_requests or connection.served == 0:
                connection.closing = True
            else:
                self._close(connection)
                return
        else:
            connection.reader.feed(data)
            if connection.waiting is Waiting.BODY:
                self._wait(connection, Waiting.BODY)
        self._advance(connection)

    def _is_too_slow(self, connection: Connection) -> bool:
        """Return whether a body arrived at less than ``http.min_rate`` in a window of ``http.body_timeout``."""
        since, before = connection.body_window
        now, received = time.monotonic(), connection.reader.received
        timeout = self._body_timeout
        if now - since <= timeout:
            return False
        connection.body_window = now, received
        return received - before < timeout * self._min_rate

    def _advance(self, connection: Connection) -> None:
        """Answer the complete requests of a connection, then wait for its next event."""
        answered = 0
        while True:
            if connection.unfinished and not self._finish_answer(connection):
                return
            if (
                connection.closing
                and connection.request is None
                and not self._has_last_request(connection)
            ):
                if connection.pending:
                    continue
                self._end(connection)
                return
            if connection.request is None and not self._next_request(connection):
                if connection.pending or connection.closing:
                    continue
                if connection.maybe_more:
                    connection.maybe_more = False
                    if (data := connection.receive()) is not None:
                        self._received(connection, data)  # which calls this function again
                        return
                self._wait_for_input(connection)
                return
            if answered >= _BURST or not self._can_call():
                self._defer(connection)
                return
            if self._thread_pool is not None:
                self._suspend(connection)
                self._thread_pool.submit(connection)
                return
            self._answer_request(connection)
            answered += 1

    def _finish_answer(self, connection: Connection) -> bool:
        """Wait until an answer is sent, then let the application close it; return whether both are done."""
        if connection.pending:
            if connection.waiting is not Waiting.WRITE:
                self._wait(connection, Waiting.WRITE)
            self._register(connection, _OUT)
            return False
        if not self._can_call():
            self._suspend(connection)
            self._ready.append(connection)
            return False
        return self._close_response(connection)

    def _has_last_request(self, connection: Connection) -> bool:
        # The client has shut down its sending side: requests that are complete are answered.
        return not connection.unread and not connection.ended and self._next_request(connection)

    def _next_request(self, connection: Connection) -> bool:
        """Take the next complete request; return False if there is none."""
        if connection.between_requests:
            return False
        reader = connection.reader
        try:
            connection.request = reader.next()
        except RequestError as error:
            self._refuse(connection, error.status, str(error))
            return False
        except StorageError as error:
            now = time.monotonic()
            if not isinstance(error, BudgetError) or now >= self._budget_logged_at + _LOG_INTERVAL:
                self._budget_logged_at = now
                logger.error("%s", error)  # noqa: TRY400 - the disk's fault: no traceback
            self._refuse(connection, "503 Service Unavailable", "the request cannot be stored")
            return False
        if connection.request is None:
            if connection.waiting is Waiting.BODY and self._is_too_slow(connection):
                self._refuse(connection, "408 Request Timeout", "the body arrives too slowly")
            return False
        self._deadlines.clear(connection)  # the next state is another request, with its own timeout
        return True

    def _refuse(self, connection: Connection, status: str, reason: str) -> None:
        # The spooled body first: a disk that it filled has space again before the client retries.
        connection.reader.close()
        connection.closing = connection.unread = connection.ended = True
        if self._access is None:
            self._send_error(connection, status, reason)
            return
        connection.sent_before = connection.sent
        connection.unlogged = self._incomplete_entry(connection, int(status[:3]))
        length = self._send_error(connection, status, reason)
        connection.unlogged = replace(connection.unlogged, length=length)
        if not connection.pending:
            self._log_last(connection)

    def _send_error(self, connection: Connection, status: str, reason: str) -> int:
        """Send an answer of the server's own; return the length of its body."""
        answer = self._renderer.plain_error(status, reason)
        connection.send_nowait(answer)
        return len(answer.partition(b"\r\n\r\n")[2])

    def _incomplete_entry(self, connection: Connection, status: int) -> CompletedRequest:
        """Return the access log's entry for a request that was never complete."""
        reader = connection.reader
        if (cached := reader.current) is not None:
            return CompletedRequest(cached.remote or connection.remote, cached.head, status, 0, 0.0)
        return CompletedRequest(connection.remote, unparsed_head(reader.buffer), status, 0, 0.0)

    def _log_last(self, connection: Connection) -> None:
        """Log the last answer; called when no more of it will be sent."""
        answered, connection.unlogged = connection.unlogged, None
        if answered is None or self._access is None:
            return
        if connection.sent == connection.sent_before and connection.pending:
            answered = replace(answered, status=CLIENT_CLOSED_REQUEST, length=0)
        elif unsent := connection.unsent:
            answered = replace(answered, length=max(0, answered.length - unsent))
        self._access.log(answered)

    def _wait_for_input(self, connection: Connection) -> None:
        kind = Waiting.NEXT_REQUEST if connection.served else Waiting.FIRST_REQUEST
        if not connection.between_requests:
            reader = connection.reader
            kind = Waiting.BODY if reader.in_body else Waiting.FIRST_REQUEST
            if reader.wants_continue:
                reader.wants_continue = False
                connection.send_nowait(CONTINUE)
        else:
            connection.drop_reader()
        if connection.waiting is not kind:
            if kind is Waiting.BODY:
                connection.body_window = time.monotonic(), reader.received
            self._wait(connection, kind)
        connection.idle = connection.between_requests and connection.plain
        self._register(connection, _IN)
        if isinstance(connection.sock, TlsSocket) and connection.sock.has_decrypted():
            # Decrypted bytes, which epoll does not report.
            data = connection.receive()
            if data:
                self._received(connection, data)

    def _register(self, connection: Connection, events: int) -> None:
        registered = connection.registered
        if registered == events:
            return
        if not registered:
            self._acceptor.epoll.register(connection.fd, events)
        elif not events:
            self._acceptor.epoll.unregister(connection.fd)
        else:
            self._acceptor.epoll.modify(connection.fd, events)
        connection.registered = events

    def _end(self, connection: Connection) -> None:
        if not connection.unread or connection.waiting is Waiting.CLOSE:
            self._close(connection)
            return
        connection.shutdown_write()
        self._wait(connection, Waiting.CLOSE)
        connection.closing = False
        self._register(connection, _IN)

    def _close(self, connection: Connection) -> None:
        self._deadlines.clear(connection)
        if self._connections.pop(connection.fd, None) is None:
            return
        if self._access is not None:
            if connection.unlogged is None and not (
                connection.between_requests or connection.ended
            ):
                connection.unlogged = self._incomplete_entry(connection, CLIENT_CLOSED_REQUEST)
            self._log_last(connection)
        if connection.registered:
            # Closing does not unregister a socket that a child of the application has inherited.
            self._acceptor.epoll.unregister(connection.fd)
            connection.registered = 0
        connection.close()
        if connection.after_sending is not None:
            self._ready.append(connection)
        self._acceptor.slot_writer.set_connections(len(self._connections))

    # --- requests --------------------------------------------------------------------------------

    def _answer_request(self, connection: Connection) -> None:
        request = connection.request
        assert request is not None
        connection.request = None
        try:
            if request.cached.probe:
                self._answer_probe(connection, request.cached)
            else:
                self._answer(connection, request.cached, request.body, request.body_length)
        finally:
            request.body.close()

    def _answer_probe(self, connection: Connection, cached: CachedHead) -> None:
        acceptor = self._acceptor
        keep = self._keeps(connection, cached)
        fine = cached.probe == "alive" or not (acceptor.retiring or acceptor.drain_announced)
        status, text = ("200 OK", "ok\n") if fine else ("503 Service Unavailable", "leaving\n")
        connection.send_nowait(
            self._renderer.plain(status, text, keep=keep, head_only=cached.head_only)
        )
        if not keep:
            connection.closing = connection.ended = True

    def _keeps(self, connection: Connection, cached: CachedHead) -> bool:
        connection.served += 1
        return (
            cached.keep
            and self._keep_alive
            and not self._acceptor.retiring
            and connection.served < self._max_requests
        )

    def _answer(
        self, connection: Connection, cached: CachedHead, body: IO[bytes], length: int
    ) -> None:
        takeover = self._takeover
        if takeover.asleep and self._handoff is not None:
            takeover.activate()
        slot_writer, loop_lock = self._slot_writer, takeover.loop_lock
        if cached is not self._cached_in_slot:
            self._cached_in_slot = cached
            slot_writer.set_request_line(cached.line)
        slot_writer.set_busy()
        self._current = connection
        try:
            loop_lock.release()
            self._call(connection, cached, body, length)
        finally:
            if not loop_lock.acquire(False):
                takeover.reacquire()
            self._current = None
            slot_writer.request_done()

    def _close_response(self, connection: Connection) -> bool:
        """Let the application close its answer; return False if a thread does, which owns the connection then."""
        if self._thread_pool is not None:
            self._suspend(connection)
            self._thread_pool.submit(connection)
            return False
        takeover = self._takeover
        if takeover.asleep and self._handoff is not None:
            takeover.activate()
        self._cached_in_slot = None
        self._current = connection
        with self._slot_writer.busy_outside_request():
            try:
                takeover.loop_lock.release()
                self._call_after_sending(connection)
            finally:
                takeover.reacquire()
        self._current = None
        return True

    def _call_after_sending(self, connection: Connection) -> None:
        close, connection.after_sending = connection.after_sending, None
        assert close is not None
        try:
            close()
        except BaseException as error:
            logger.exception("exception in close() of the application's answer")
            if isinstance(error, SystemExit):
                self._acceptor.retire()

    def _answer_in_thread(self, connection: Connection) -> None:
        if connection.after_sending is not None:
            self._call_after_sending(connection)
            return
        request = connection.request
        assert request is not None
        try:
            self._call(connection, request.cached, request.body, request.body_length)
        except ClientGoneError:
            connection.client_gone = True
        except Exception:
            logger.exception("connection from %s failed", connection.remote)
            connection.client_gone = True
        finally:
            request.body.close()

    def _on_answered(self, connection: Connection) -> None:
        connection.request = None
        if connection.client_gone:
            self._close(connection)
        elif not connection.closed:
            self._advance(connection)

    def _call(
        self, connection: Connection, cached: CachedHead, body: IO[bytes], length: int
    ) -> None:
        """Call the application; touches no state of the loop except this connection."""
        engine: HttpEngine[CachedHead]
        engine = HttpEngine(connection.context.bounds, connection.context.cached_head)
        engine.take_whole(cached)
        response = Response(
            connection,
            engine,
            self._renderer,
            head_only=cached.head_only,
            http11=cached.http11,
            keep=self._keeps(connection, cached),
        )
        connection.response = response
        connection.sent_before = connection.sent
        environ = cached.template.copy()
        if cached.remote is None:
            environ["REMOTE_ADDR"] = connection.remote
            environ["REMOTE_PORT"] = connection.remote_port
        if connection.server_name:
            environ["SERVER_NAME"] = connection.server_name
        if length:
            wsgi.set_body(environ, body, length)
        else:
            environ["wsgi.input"] = body
        begun = self._begin(environ) if self._observed else 0.0
        try:
            after = wsgi.call(self._application, environ, response)
            if after is not None:
                if connection.pending:
                    connection.after_sending = after
                else:
                    after()
        except ClientGoneError:
            raise
        except BaseException as error:
            self._application_failed(connection, cached, response, error)
        finally:
            # A reference cycle: only the garbage collector would free it.
            connection.response = None
            if self._observed:
                self._finish(connection, environ, cached, response, begun)
        if not response.keep:
            connection.closing = connection.ended = True
            # Input behind the last request is not read.
            connection.unread = connection.unread or cached.keep or not connection.between_requests

    def _answer_overdue(self) -> None:
        """Answer an overdue request with 504; the master kills this process next."""
        current = self._current if self._thread_pool is None else self._thread_pool.oldest
        if current is None or current.response is None:
            return
        response = current.response
        if current.plain and not response.head_sent:
            with contextlib.suppress(ClientGoneError):
                text = "the application took too long"
                response.length = self._send_error(current, "504 Gateway Timeout", text)
                # Bytes that the application still sends would follow a complete answer.
                current.shutdown_write()
        cached = self._cached_in_slot if current.request is None else current.request.cached
        if self._access is not None and cached is not None:
            status = response.code if response.head_sent else 504
            seconds = (time.monotonic_ns() - self._slot_writer.busy_since_ns()) / 1e9
            remote = cached.remote or current.remote
            self._access.log(
                CompletedRequest(remote, cached.head, status, response.length, seconds)
            )
            self._access.flush()

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
        if self._access is not None:
            seconds = time.monotonic() - begun
            remote = cached.remote or connection.remote
            connection.unlogged = CompletedRequest(
                remote, cached.head, status, response.length, seconds
            )
            if not connection.pending:
                self._log_last(connection)

    def _application_failed(
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
        response.keep = False
        if response.head_sent:
            raise ClientGoneError("the answer ends where the application failed")
        response.length = self._send_error(
            connection, "500 Internal Server Error", "the application failed"
        )

    # --- while the application blocks the main thread --------------------------------------------

    def _run_loop(self) -> None:
        """Run the loop while the application blocks the main thread; called by the takeover thread only."""
        if self._acceptor.retiring:
            return  # the worker drains, and its own connections wait for the main thread
        current = self._current
        if current is None:
            return
        self._suspend(current)
        self._taken_over = True
        try:
            self._forward_wakeups()
            self._acceptor.disable()
            while not self._takeover.return_requested:
                self._poll()
        finally:
            self._taken_over = False

    def _forward_wakeups(self) -> None:
        """Accept the connections for which the kernel woke this worker; others get them when complete.

        The kernel wakes one worker for a connection and no second one. This worker served a held
        connection first, in which the application blocks it now.
        """
        woken_for, self._woken_for = self._woken_for, []
        for descriptor in woken_for:
            if descriptor in self._http_listeners:
                self._accept(descriptor)
            elif self._handoff is not None and (received := self._handoff.get()) is not None:
                if self._handoff.put(received.connection, received.sock.fileno(), received.body):
                    received.close()
                else:
                    self._adopt(received)

    def _suspend(self, connection: Connection) -> None:
        """Unregister a connection: it belongs to the application now, or waits for it."""
        self._register(connection, 0)
        self._deadlines.clear(connection)
        connection.idle = False

    def _defer(self, connection: Connection) -> None:
        """Hand a complete request to another worker, or queue it until the application is free."""
        if not self._can_call() and self._hand_off(connection):
            return
        self._suspend(connection)
        self._ready.append(connection)

    def _hand_off(self, connection: Connection) -> bool:
        request = connection.request
        assert request is not None
        if self._handoff is None or self._acceptor.retiring or not connection.plain:
            return False
        body, descriptor = b"", None
        rest = connection.reader.buffer
        if not fits(len(rest)):
            return False
        if request.body_length and isinstance(request.body, io.BytesIO):
            body = request.body.getvalue()
            if not fits(len(body) + len(rest)):
                descriptor, body = as_file(body), b""
                if descriptor is None:
                    return False
        elif request.body_length:
            descriptor = os.dup(request.body.fileno())
        handed = HandedConnection(
            listener=connection.context.index,
            trusted=connection.context.trusted,
            remote=connection.remote,
            remote_port=connection.remote_port,
            requests=connection.served,
            head=request.cached.raw,
            body=body,
            body_length=request.body_length,
            buffered=rest,
            closing=connection.closing,
        )
        try:
            given = self._handoff.put(handed, connection.fd, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)
        if given:
            connection.ended = True
            self._close(connection)
        return given

    def _take_handed(self) -> bool:
        assert self._handoff is not None
        received = self._handoff.get()
        if received is None:
            return False
        self._acceptor.rearm(self._handoff.fileno())
        self._adopt(received)
        return True

    def _adopt(self, received: ReceivedConnection) -> None:
        try:
            connection = self._connection_from(received)
        except Exception:
            logger.exception("cannot take over a connection from another worker; closed")
            received.close()
            return
        self._add_connection(connection)
        self._guarded(self._advance, connection)

    def _connection_from(self, received: ReceivedConnection) -> Connection:
        handed = received.connection
        context = self._by_index[handed.listener].contexts[handed.trusted]
        connection = Connection(
            received.sock, context, self._output, handed.remote, handed.remote_port
        )
        connection.served = handed.requests
        connection.closing = handed.closing
        cached = context.cached_head(handed.head)
        body: IO[bytes] = io.BytesIO(handed.body)
        if received.body is not None:
            os.lseek(received.body, 0, os.SEEK_SET)
            body, received.body = os.fdopen(received.body, "rb"), None
        connection.request = Request(cached, body, handed.body_length)
        if handed.buffered:
            connection.reader.feed(handed.buffered)
        return connection

    def _take_remaining_handoff(self) -> bool:
        # The last worker of a generation serves what is still in the handoff queue.
        return self._handoff is not None and self._take_handed()

    # --- time ------------------------------------------------------------------------------------

    def _wait(self, connection: Connection, kind: Waiting) -> None:
        connection.idle = False
        if kind is Waiting.WRITE:
            connection.outstanding_before = connection.outstanding()
        self._deadlines.set(connection, kind)

    def _timeout(self) -> float | None:
        """Return the seconds until the first deadline; None: there is none."""
        if self._ready and self._can_call():
            return 0.0
        soonest = self._deadlines.soonest
        if self._draining_since is not None and self._idle:
            soonest = min(soonest, self._draining_since + self._acceptor.linger)
        if soonest == math.inf or not self._connections:
            return None
        return max(0.0, soonest - time.monotonic())

    def _expire(self) -> None:
        for connection, kind in self._deadlines.expired(time.monotonic()):
            self._guarded(self._on_deadline, connection, kind)

    def _on_deadline(self, connection: Connection, kind: Waiting) -> None:
        if kind is Waiting.NEXT_REQUEST:
            self._close_idle(connection)
            return
        if kind is Waiting.WRITE:
            if connection.has_progressed(connection.outstanding_before):
                self._wait(connection, kind)
                return
            connection.reset_on_close()
        if kind in {Waiting.FIRST_REQUEST, Waiting.BODY} and not connection.between_requests:
            self._refuse(connection, "408 Request Timeout", "the request did not arrive")
            if not connection.pending:
                self._end(connection)
                return
        self._close(connection)

    def _close_idle(self, connection: Connection) -> None:
        # A request that has just arrived is answered, not reset.
        data = connection.receive()
        if data:
            self._received(connection, data)
        else:
            self._close(connection)

    def _close_idle_connections(self) -> None:
        """Close idle connections after the linger time; requests that have begun are answered first."""
        now = time.monotonic()
        if self._draining_since is None:
            self._draining_since = now
        if now >= self._draining_since + self._acceptor.linger:
            for connection in list(self._idle):
                self._guarded(self._close_idle, connection)
