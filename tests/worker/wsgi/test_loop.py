"""The WSGI loop: room for connections, and the drain, over a real socket."""

import os
import select
import threading
import time

import pytest

from preforkd.config.settings import HttpSettings, Settings, WorkersSettings
from preforkd.ipc import messages
from preforkd.ipc.channel import close_all
from preforkd.worker import acceptor
from tests.worker import handoffs
from tests.worker.handoffs import SlowApplication, workers_sharing_a_queue
from tests.worker.serving import read_all, read_answer, serving, wait_until
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


def test_what_a_child_of_the_application_closes():
    """The connections, both ends of the handoff queue, and the timer of the takeover thread."""
    application = SlowApplication()
    with workers_sharing_a_queue(application, size=1) as (worker,), worker.connect() as sock:
        sock.sendall(handoffs.GET % b"/")
        read_answer(sock)
        loop = worker.loop
        (held,) = loop._connections.by_descriptor
        (timer,) = loop._takeover.descriptors()
        ends = loop._handoff.descriptors()
        assert "timerfd" in os.readlink(f"/proc/self/fd/{timer}")
        assert loop.descriptors() == [held, *ends, timer]
    with serving(echo) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        read_answer(sock)
        assert len(worker.loop.descriptors()) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_zygote_is_forked_without_threads(threads):
    """Between two requests; the worker serves on afterwards, its kept connections too."""
    names = []
    whole = Settings(workers=WorkersSettings(threads=threads))
    application = SlowApplication()
    with (
        workers_sharing_a_queue(application, size=1, whole=whole) as (worker,),
        worker.connect() as sock,
    ):

        def forks(_number, descriptors):
            close_all(descriptors)
            names.append([one.name for one in threading.enumerate() if "preforkd" in one.name])

        worker.acceptor.on_refork = forks
        for _ in range(2):
            sock.sendall(handoffs.GET % b"/slow")
            assert application.entered.acquire(timeout=20)
            count = len(names)
            worker.master.send(messages.ReforkRequest(1), (0, 0))
            worker.acceptor.wake()
            assert len(names) == count  # not while the application runs
            application.go.set()
            assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")
            wait_until(lambda count=count: len(names) > count)
            application.go.clear()
    assert names == [[], []]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_of_a_signal_handler_retires_the_worker(error, caplog):
    """Raised while the loop polls: the requests that have begun are answered."""
    with serving(echo) as worker, worker.connect() as half:
        half.sendall(b"GET /half HTTP/1.1\r\n")
        assert b"GET / " in worker.ask(GET % (b"/", CLOSE))
        poll, left = worker.acceptor.poll, [error]

        def interrupted(timeout):
            if left:
                raise left.pop()
            return poll(timeout)

        worker.acceptor.poll = interrupted
        worker.acceptor.wake()
        wait_until(lambda: worker.acceptor.retiring)
        half.sendall(b"Host: h\r\n\r\n")
        assert b"GET /half" in read_all(half)
        assert worker.ended()
    assert "outside a request" in caplog.text


@pytest.mark.parametrize(("total", "bodies"), [(0, 4000), (700, 700)])
def test_the_bounds_of_what_a_worker_spools(total, bodies):
    """Four of the largest bodies, unless there is a setting for all of them; sixteen answers."""
    http = HttpSettings(max_body=1000, spool_total=total, answer_spool=50)
    with serving(echo, whole=Settings(http=http)) as worker:
        (listener,) = worker.loop._listeners.values()
        budgets = {id(one.bounds.budget): one.bounds.budget for one in listener.contexts}
        assert [budget._left["files"] for budget in budgets.values()] == [bodies]
        assert worker.loop._accepting._limits.budget._left["files"] == 800


@pytest.mark.parametrize(("threads", "enabled"), [(1, True), (2, False)])
def test_where_a_thread_takes_the_loop_over(threads, enabled):
    """Where there is a queue to other workers, and no pool of threads."""
    whole = Settings(workers=WorkersSettings(threads=threads))
    application = SlowApplication()
    with workers_sharing_a_queue(application, size=1, whole=whole) as (worker,):
        assert worker.loop._takeover.enabled is enabled
    with serving(echo, whole=whole) as worker:
        assert not worker.loop._takeover.enabled


def test_a_worker_whose_threads_are_busy_does_not_accept():
    """The connection is left to the others; it accepts again when a thread is free."""
    whole = Settings(workers=WorkersSettings(threads=2))
    application = SlowApplication()
    with workers_sharing_a_queue(application, size=1, whole=whole) as (worker,):
        slow = [worker.connect() for _ in range(2)]
        for sock in slow:
            sock.sendall(handoffs.GET % b"/slow")
            assert application.entered.acquire(timeout=20)
        with worker.connect() as other:
            other.sendall(handoffs.GET % b"/")
            assert not select.select([other], [], [], 0.1)[0]
            assert worker.slot.read(1e18).accepted == 2
            application.go.set()
            assert read_answer(other)[0].startswith("HTTP/1.1 200 ")
        for sock in slow:
            sock.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_no_timeout_runs_for_a_request_that_is_with_the_application(threads):
    """The takeover thread, or the main thread, runs the loop meanwhile, and its timeouts."""
    application = SlowApplication()
    whole = Settings(http=HttpSettings(keep_alive=0.2), workers=WorkersSettings(threads=threads))
    with (
        workers_sharing_a_queue(application, size=1, whole=whole) as (worker,),
        worker.connect() as sock,
    ):
        sock.sendall(handoffs.GET % b"/")
        read_answer(sock)
        sock.sendall(handoffs.GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        wait_until(lambda: worker.loop._takeover.active or threads > 1)
        with worker.connect() as other:  # an idle connection of the same worker comes to its end
            other.sendall(b"GET /half")
            time.sleep(0.5)
        application.go.set()
        assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_environ_says_whether_there_are_threads(threads):
    """PEP 3333: another thread may call the same application at the same time."""
    seen = []

    def looks(environ, start_response):
        seen.append((environ["wsgi.multithread"], environ["wsgi.multiprocess"]))
        return echo(environ, start_response)

    with serving(looks, whole=Settings(workers=WorkersSettings(threads=threads))) as worker:
        worker.ask(GET % (b"/", CLOSE))
    assert seen == [(threads > 1, True)]


def test_an_idle_worker_sleeps():
    """Until the first deadline of its connections, and for ever without one."""
    with serving(echo, keep_alive=1000, header_timeout=0.1) as worker:
        poll, timeouts = worker.acceptor.poll, []
        worker.acceptor.poll = lambda timeout: timeouts.append(timeout) or poll(timeout)
        worker.acceptor.wake()
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
            wait_until(lambda: timeouts and timeouts[-1] and 900 < timeouts[-1] <= 1000)
        wait_until(lambda: timeouts[-1] is None)
        assert len(timeouts) < 10


def test_a_request_for_which_no_thread_is_free_is_handed_off():
    """It does not wait in this worker."""
    application = SlowApplication()
    whole = Settings(workers=WorkersSettings(threads=2))
    with (
        workers_sharing_a_queue(application, size=1, whole=whole) as (worker,),
        worker.connect() as kept,
        worker.connect() as first,
        worker.connect() as second,
    ):
        kept.sendall(handoffs.GET % b"/")
        read_answer(kept)
        for sock in (first, second):
            sock.sendall(handoffs.GET % b"/slow")
            assert application.entered.acquire(timeout=20)
        kept.sendall(handoffs.GET % b"/")
        assert select.select([worker.loop._handoff.fileno()], [], [], 20)[0]
        application.go.set()
        for sock in (kept, first, second):
            assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")


def test_input_behind_a_request_that_is_with_a_thread_keeps_no_loop_awake():
    """It is received behind the answer."""
    application = SlowApplication()
    whole = Settings(workers=WorkersSettings(threads=2))
    with (
        workers_sharing_a_queue(application, size=1, whole=whole) as (worker,),
        worker.connect() as sock,
    ):
        sock.sendall(handoffs.GET % b"/")
        read_answer(sock)  # the loop polls it from now on
        sock.sendall(handoffs.GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        poll, polls = worker.acceptor.poll, []
        worker.acceptor.poll = lambda timeout: polls.append(timeout) or poll(timeout)
        worker.acceptor.wake()
        sock.sendall(handoffs.GET % b"/behind")
        time.sleep(0.2)
        assert len(polls) < 10
        application.go.set()
        for _ in range(2):
            assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")
