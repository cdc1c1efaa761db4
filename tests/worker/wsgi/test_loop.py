"""The WSGI loop: room for connections, and the drain, over a real socket."""

import threading
import time

from preforkd.worker import acceptor
from tests.worker.serving import read_all, read_answer, serving
from tests.worker.wsgi.requests import CLOSE, GET, echo


def test_connections_above_the_bound_wait_in_the_backlog():
    """They are accepted when another connection ends."""
    with serving(echo, connections=2) as worker:
        first, second, third = (worker.connect() for _ in range(3))
        for sock in (first, second):
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
        third.sendall(GET % (b"/", CLOSE))
        assert worker.slot.read(1e18).connections == 2
        first.close()
        assert b"GET / " in read_all(third)
        second.close()
        third.close()


def test_a_retiring_worker_answers_requests_that_have_begun():
    """Half a request is completed and answered with Connection: close; nothing else is accepted."""
    with serving(echo) as worker, worker.connect() as half:
        half.sendall(b"GET /half HTTP/1.1\r\n")
        assert b"GET / " in worker.ask(GET % (b"/", CLOSE))  # by now the half one is accepted too
        worker.retire()
        half.sendall(b"Host: h\r\n\r\n")
        answer = read_all(half)
        assert b"GET /half" in answer
        assert b"Connection: close" in answer
        assert worker.ended()


def test_an_accepted_connection_is_never_lost():
    """A connection without a request when the worker retires still gets its first answer."""
    with serving(echo) as worker, worker.connect() as quiet:
        assert b"GET / " in worker.ask(GET % (b"/", CLOSE))
        worker.retire()
        quiet.sendall(GET % (b"/first", b""))
        assert b"GET /first" in read_all(quiet)
        assert worker.ended()


def test_idle_connections_linger_and_then_end():
    """During the linger time an idle connection's request is answered; afterwards it is closed."""
    with serving(echo) as worker, worker.connect() as kept, worker.connect() as idle:
        for sock in (kept, idle):
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
        worker.retire(linger=1.0)
        kept.sendall(GET % (b"/again", b""))
        head, body = read_answer(kept)
        assert body == b"GET /again "
        assert "Connection: close" in head
        assert read_all(idle) == b""
        assert worker.ended()


def test_an_idle_connection_lingers_at_a_stop(monkeypatch):
    """A stop has no linger time of its own: a request that a client is just sending is answered all the same."""
    monkeypatch.setattr(acceptor, "SHORTEST_LINGER", 20.0)
    with serving(echo) as worker, worker.connect() as kept:
        kept.sendall(GET % (b"/", b""))
        read_answer(kept)
        worker.retire(linger=0.0)
        while not worker.acceptor.retiring:
            time.sleep(0.001)
        kept.sendall(GET % (b"/again", b""))
        assert read_answer(kept)[1] == b"GET /again "
        assert worker.ended()


def test_a_running_request_is_finished():
    """The worker retires while the application runs: the answer is complete."""
    entered, go = threading.Event(), threading.Event()

    def waits(environ, start_response):
        entered.set()
        go.wait(20)
        start_response("200 OK", [])
        return [b"done"]

    with serving(waits) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        assert entered.wait(20)
        assert worker.slot.read(1e18).busy_since is not None
        worker.retire()
        go.set()
        assert read_all(sock).endswith(b"done")
        assert worker.ended()


def test_a_worker_retires_when_the_master_has_gone():
    """End-of-file on the channel retires the worker like an order."""
    with serving(echo) as worker:
        worker.master.close()
        assert worker.ended()
