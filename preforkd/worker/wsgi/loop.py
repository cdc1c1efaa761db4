"""The WSGI loop: one request at a time in the application, any number of connections outside it.

A request reaches the application when it is complete, and an answer that the client does not take at once
is sent in the background: slow clients and idle connections occupy no worker. While the application runs,
this worker does not accept; the kernel gives new connections to idle workers. If the application runs for
long, the takeover thread runs the loop and hands complete requests to other workers. Connections that this
worker holds are served before new ones are accepted.
"""

import math
import os
import select
import time
from typing import Any

from preforkd.apps import wsgi
from preforkd.apps.hooks import Hooks
from preforkd.config.settings import HttpSettings, Settings
from preforkd.http.bounds import Budget
from preforkd.http.forwarded import Trust
from preforkd.ipc.handoff import HandoffQueue
from preforkd.logs.access_log import open_access_log
from preforkd.worker.acceptor import Acceptor
from preforkd.worker.deadlines import CLOSE_TIMEOUT
from preforkd.worker.interruption import retire_if_interrupted
from preforkd.worker.listener_context import Build, Endpoint, HttpListener
from preforkd.worker.wsgi.accepting import Accepting
from preforkd.worker.wsgi.answering import Answering
from preforkd.worker.wsgi.connection import Connection, Waiting
from preforkd.worker.wsgi.connections import Connections
from preforkd.worker.wsgi.handoff import Handoff
from preforkd.worker.wsgi.outbox import OutputLimits
from preforkd.worker.wsgi.reading import Reading
from preforkd.worker.wsgi.records import Records
from preforkd.worker.wsgi.serving import Serving
from preforkd.worker.wsgi.takeover import Takeover

_SPOOLED_BODIES = 4
"""Bodies of ``http.max_body`` that a worker may spool at once, where ``http.spool_total`` is 0."""
_SPOOLED_ANSWERS = 16
"""Answers of ``http.answer_spool`` that a worker may spool at once."""
_IN = select.EPOLLIN
_NEXT_REQUEST = Waiting.NEXT_REQUEST


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
        trust = Trust(settings.proxy.trusted)
        limits = OutputLimits(
            write_timeout=http.body_timeout,
            min_rate=http.min_rate,
            spool=http.answer_spool,
            budget=Budget(files=_SPOOLED_ANSWERS * http.answer_spool),
        )
        listeners = _http_listeners(acceptor, settings, trust)
        self._acceptor = acceptor
        self._max_connections = http.connections
        self._pid = os.getpid()
        self._draining_since: float | None = None
        self._woken_for: list[int] = []
        """Listeners, and the handoff queue, for which the kernel woke this worker and no other."""
        self._listeners = listeners
        self._handoff = (
            Handoff(handoff, acceptor, list(listeners.values()), limits)
            if handoff is not None
            else None
        )
        self._takeover = Takeover(
            self._run_loop,
            acceptor.wake,
            enabled=handoff is not None and settings.workers.threads == 1,
        )
        records = self._records = Records(open_access_log(settings.access_log))
        connections = self._connections = Connections(acceptor, _timeouts(http), records)
        self._answering = Answering(
            acceptor, application, settings, records=records, hooks=hooks, takeover=self._takeover
        )
        self._serving = Serving(
            acceptor,
            connections,
            records=records,
            answering=self._answering,
            reading=Reading(connections, records, self._answering, http),
            handoff=self._handoff,
        )
        self._accepting = Accepting(
            acceptor, listeners, connections, self._serving, trust=trust, limits=limits
        )
        acceptor.on_overdue = self._answering.answer_overdue

    def run(self) -> None:
        """Serve until the worker retires and the requests that had arrived are answered."""
        self._takeover.reacquire()
        while True:
            if self._acceptor.pending_refork is not None and self._answering.is_idle():
                self._fork_zygote()
            try:
                if not self._run_once():
                    break
            except BaseException as error:
                retire_if_interrupted(error, self._acceptor, self._pid)
                self._answering.recover()
        self._stop_threads()
        self._records.flush()

    def _run_once(self) -> bool:
        """Run one turn of the loop; return False when the worker retires and has no connection left."""
        acceptor, ready = self._acceptor, self._connections.ready
        if acceptor.retiring:
            self._close_idle_connections()
            self._on_sources_ready()
            if not self._connections and not ready:
                # One from the handoff queue may be answered at once: there is no event to wait for then.
                return self._take_handed()
        elif self._has_room():
            acceptor.enable()
        else:
            acceptor.disable()
        self._poll()
        for _ in range(len(ready)):
            if not self._answering.can_call():
                break
            # Deferred while the application ran, or when other connections had their turn.
            connection = ready.popleft()
            if not connection.closed:
                self._serving.guarded(self._serving.advance, connection)
            elif connection.after_sending is not None:
                self._serving.guarded(self._serving.close_answer, connection)
        return True

    def _has_room(self) -> bool:
        if self._acceptor.pending_refork is not None:
            return False  # until the threads have answered their requests
        pool = self._answering.pool
        return len(self._connections) < self._max_connections and (pool is None or pool.free > 0)

    # --- a turn ----------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Wait for events and handle them: first the held connections, then new ones."""
        connections = self._connections.by_descriptor
        serving, deadlines = self._serving, self._connections.deadlines
        self._records.flush()
        serving.send_held()  # where an exception of a signal handler ended the last turn
        takeover = self._takeover
        takeover.polling = True
        events = self._acceptor.poll(self._timeout())
        takeover.polling = False
        if (now := time.monotonic()) >= takeover.arm_at and not takeover.active:
            takeover.arm(now)
        # Recorded first: the application may block this worker in the calls below.
        self._woken_for = [descriptor for descriptor, _ in events if descriptor not in connections]
        # While the application runs for long, the takeover thread sends what is held back.
        serving.holds = len(events) > 1 and takeover.enabled and not takeover.active
        for descriptor, event in events:
            connection = connections.get(descriptor)
            if connection is None:
                continue
            try:
                if connection.waiting is _NEXT_REQUEST and event == _IN:
                    serving.read(connection)
                elif connection.opening is not None:
                    self._accepting.advance(connection)
                else:
                    serving.on_event(connection)
            except BaseException as error:
                serving.fail(connection, error)
        serving.holds = False
        serving.send_held()
        if (pool := self._answering.pool) is not None:
            while (connection := pool.take_answered()) is not None:
                serving.guarded(serving.on_answered, connection)
        if self._woken_for:
            self._on_sources_ready()
        if time.monotonic() >= deadlines.soonest:
            for connection, kind in deadlines.expired(time.monotonic()):
                serving.guarded(serving.on_deadline, connection, kind)

    def _timeout(self) -> float | None:
        """Return the seconds until the first deadline; None: there is none."""
        if self._connections.ready and self._answering.can_call():
            return 0.0
        soonest = self._connections.deadlines.soonest
        if self._draining_since is not None and self._connections.idle:
            soonest = min(soonest, self._draining_since + self._acceptor.linger)
        if soonest == math.inf or not self._connections:
            return None
        return max(0.0, soonest - time.monotonic())

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
                self._accepting.accept(self._woken_for.pop(0))

    def _take_handed(self) -> bool:
        """Take a connection from the handoff queue; return whether there was one."""
        connection = self._handoff.take() if self._handoff is not None else None
        if connection is None:
            return False
        self._adopt(connection)
        return True

    def _adopt(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._serving.guarded(self._serving.advance, connection)

    # --- while the application blocks the main thread --------------------------------------------

    def _run_loop(self) -> None:
        """Run the loop while the application blocks the main thread; called by the takeover thread only."""
        if self._acceptor.retiring:
            return  # the worker drains, and its own connections wait for the main thread
        current = self._answering.current
        if current is None:
            return
        self._connections.suspend(current)
        self._serving.send_held()
        self._forward_wakeups()
        self._acceptor.disable()
        while not self._takeover.return_requested:
            self._poll()

    def _forward_wakeups(self) -> None:
        """Accept the connections for which the kernel woke this worker; others get them when complete.

        The kernel wakes one worker for a connection and no second one. This worker served a held
        connection first, in which the application blocks it now.
        """
        woken_for, self._woken_for = self._woken_for, []
        for descriptor in woken_for:
            if descriptor in self._listeners:
                self._accepting.accept(descriptor)
            elif self._handoff is not None and (kept := self._handoff.pass_on()) is not None:
                self._adopt(kept)

    # --- the end ---------------------------------------------------------------------------------

    def _close_idle_connections(self) -> None:
        """Close idle connections after the linger time; requests that have begun are answered first."""
        now = time.monotonic()
        if self._draining_since is None:
            self._draining_since = now
        if now >= self._draining_since + self._acceptor.linger:
            for connection in list(self._connections.idle):
                self._serving.guarded(self._serving.close_idle, connection)

    def _stop_threads(self) -> None:
        self._takeover.end()
        if self._answering.pool is not None:
            self._answering.pool.stop()

    def _fork_zygote(self) -> None:
        # Threads do not exist in the forked process, and locks that they held would stay locked.
        self._stop_threads()
        try:
            self._acceptor.fork_zygote()
        except BaseException:
            # In the zygote: the connections belong to the worker.
            for connection in self._connections:
                connection.close_after_fork()
            raise

    def descriptors(self) -> list[int]:
        """Return the connections and handoff descriptors, which are closed in a child of the application."""
        handoff = self._handoff.descriptors() if self._handoff is not None else ()
        timer = self._takeover.descriptors()
        return [*self._connections.by_descriptor, *handoff, *timer]


def _timeouts(http: HttpSettings) -> dict[Waiting, float]:
    return {
        Waiting.OPENING: http.header_timeout,
        Waiting.FIRST_REQUEST: http.header_timeout,
        Waiting.BODY: http.body_timeout,
        Waiting.NEXT_REQUEST: http.keep_alive,
        Waiting.WRITE: http.body_timeout,
        Waiting.CLOSE: CLOSE_TIMEOUT,
    }


def _http_listeners(
    acceptor: Acceptor, settings: Settings, trust: Trust
) -> dict[int, HttpListener]:
    """Return the listeners by their descriptors, in the order of the settings."""
    threads = settings.workers.threads > 1
    budget = Budget(files=settings.http.spool_total or _SPOOLED_BODIES * settings.http.max_body)

    def make_build(endpoint: Endpoint) -> Build:
        host = wsgi.server_name(endpoint.host)
        return wsgi.environ_builder(host, endpoint.port, secure=endpoint.secure, threads=threads)

    return {
        listener.sock.fileno(): HttpListener(
            index, listener, settings, make_build, trust=trust, budget=budget
        )
        for index, listener in enumerate(acceptor.listeners)
    }
