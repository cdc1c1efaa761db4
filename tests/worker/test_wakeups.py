"""Wake-ups of the kernel that a worker received and cannot serve itself; the order of serving."""

import select
import threading
import time
from contextlib import contextmanager

import pytest

from tests.worker.handoffs import GET, SlowApplication, workers_sharing_a_queue
from tests.worker.serving import read_answer


@contextmanager
def stopped_before_poll(worker, last=False):
    """Stop a worker before its poll, so that it sees all events of the meantime at once.

    ``last``: events of its connections are returned before those of shared descriptors.
    """
    acceptor, waits, go = worker.acceptor, threading.Event(), threading.Event()
    poll, held = acceptor.poll, worker.loop._connections.by_descriptor

    def wait_and_poll(timeout):
        if threading.current_thread() is worker.thread:
            waits.set()
            assert go.wait(60)
            return sorted(poll(timeout), reverse=last, key=lambda event: event[0] in held)
        return poll(timeout)

    acceptor.poll = wait_and_poll
    acceptor.wake()
    assert waits.wait(20)
    acceptor.poll = poll
    try:
        yield
    finally:
        go.set()


@pytest.mark.parametrize("last", [False, True])
def test_a_blocked_worker_accepts_or_forwards_its_wakeups(last):
    """A connection or handoff for which the kernel woke only this worker does not wait for its application."""
    application = SlowApplication()
    with workers_sharing_a_queue(application, size=1) as (worker,):
        handoff = worker.loop._handoff._queue
        kept = worker.connect()
        kept.sendall(GET % b"/")
        assert read_answer(kept)[1]
        with stopped_before_poll(worker, last):
            new = worker.connect()
            new.sendall(GET % b"/new")
            kept.sendall(GET % b"/slow")
            (held,) = worker.loop._connections.by_descriptor
            for descriptor in (worker.listener.fileno(), held):
                assert select.select([descriptor], [], [], 20)[0]
        assert application.entered.acquire(timeout=20)
        # Complete and not served here, it lies where any other worker finds it.
        assert select.select([handoff.fileno()], [], [], 20)[0]
        received = handoff.get()
        assert received.connection.head.startswith(b"GET /new ")
        application.go.set()
        assert read_answer(kept)[1]
        application.go.clear()
        with stopped_before_poll(worker, last):
            assert handoff.put(received.connection, received.sock.fileno(), received.body)
            received.close()
            kept.sendall(GET % b"/slow")
            assert select.select([held], [], [], 20)[0]
        assert application.entered.acquire(timeout=20)
        deadline = time.monotonic() + 20
        while not worker.loop._takeover.active or worker.loop._woken_for:
            assert time.monotonic() < deadline
        assert select.select([handoff.fileno()], [], [], 20)[0]
        again = handoff.get()
        assert again.connection == received.connection
        again.close()
        application.go.set()
        assert read_answer(kept)[1]
        kept.close()
        new.close()


def test_handoffs_are_served_before_the_backlog():
    """An idle worker serves the handoff queue before it accepts, whatever the backlog holds."""
    application = SlowApplication()
    order = []

    def noted(environ, start_response):
        order.append(environ["PATH_INFO"])
        return application(environ, start_response)

    noted.go = application.go
    with workers_sharing_a_queue(noted, size=1) as (worker,):
        handoff = worker.loop._handoff._queue
        kept, left = worker.connect(), worker.connect()
        for sock in (kept, left):
            sock.sendall(GET % b"/")
            read_answer(sock)
        kept.sendall(GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        left.sendall(GET % b"/left")
        assert select.select([handoff.fileno()], [], [], 20)[0]
        new = [worker.connect() for _ in range(3)]
        for sock in new:
            sock.sendall(GET % b"/new")
        application.go.set()
        for sock in (kept, left, *new):
            read_answer(sock)
            sock.close()
    assert order[2:] == ["/slow", "/left", "/new", "/new", "/new"]
