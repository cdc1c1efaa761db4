"""Connections that change workers: nobody waits behind a long request while another worker is idle."""

import contextlib
import select
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from preforkd.config.settings import HttpSettings, Settings, WorkersSettings
from preforkd.ipc.handoff import HandoffQueue, pair
from tests.worker.serving import Worker, read_all, read_answer

GET = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"


class Application:
    """Says which worker answers, and what came; /slow lasts until it is let go."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/slow":
            self.entered.release()
            assert self.go.wait(20)
        start_response("200 OK", [("X-Body", str(len(body)))])
        return [threading.current_thread().name.encode()]


@contextmanager
def team(application, size=2, **settings):
    """Workers on one listener and with one handoff queue."""
    ends = pair()
    first = None
    workers = []
    handoffs = [HandoffQueue(ends[0].dup(), ends[1].dup()) for _ in range(size)]
    for handoff in handoffs:
        worker = Worker(application, "wsgi", beside=first, handoff=handoff, **settings)
        first = first or worker
        workers.append(worker)
    try:
        yield workers
    finally:
        application.go.set()
        for worker in workers:
            worker.close()
        for end in (*handoffs, *ends):
            end.close()


def read_answers(sock, count):
    """Return so many short answers, as they came."""
    data = b""
    while data.count(b"200 OK") < count or data.endswith(b"\r\n"):
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def kept_by(workers, name, timeout=20.0):
    """Return a kept connection that the worker with this name holds."""
    others = []
    try:
        for _ in range(200):
            sock = workers[0].connect()
            sock.settimeout(timeout)
            sock.sendall(GET % b"/")
            if read_answer(sock)[1] == name:
                return sock
            others.append(sock)
    finally:
        for sock in others:
            sock.close()
    raise AssertionError("that worker never accepts")


@pytest.mark.parametrize(
    ("size", "spool"), [(0, 1 << 20), (10, 1 << 20), (300_000, 1 << 20), (300_000, 1000)]
)
def test_a_kept_connection_does_not_wait_behind_a_long_request(size, spool):
    """Its request, with a body in memory or in a file and what comes behind, goes to an idle worker."""
    application = Application()
    with team(application, spool=spool) as workers:
        slow = workers[0].connect()
        slow.sendall(GET % b"/")
        busy = read_answer(slow)[1]
        kept = kept_by(workers, busy)
        slow.sendall(GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        kept.sendall(request + GET % b"/behind")
        answers = read_answers(kept, 2)
        assert b"X-Body: %d\r" % size in answers
        other = answers.rpartition(b"\n")[2]
        assert other != busy
        assert busy not in answers
        assert not application.go.is_set()
        application.go.set()
        assert read_answer(slow)[1] == busy
        kept.sendall(GET % b"/")
        assert read_answer(kept)[1] == other
        slow.close()
        kept.close()


def test_a_request_that_arrives_slowly_meanwhile_goes_as_well():
    """The takeover thread reads while the application blocks the worker."""
    application = Application()
    with team(application) as workers:
        slow = workers[0].connect()
        slow.sendall(GET % b"/")
        busy = read_answer(slow)[1]
        kept = kept_by(workers, busy)
        slow.sendall(GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        data = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        for at in range(len(data)):
            kept.sendall(data[at : at + 1])
        head, other = read_answer(kept)
        assert other != busy
        assert "X-Body: 5" in head
        slow.close()
        kept.close()


def test_when_all_are_busy_the_first_that_is_free_takes_it():
    """A request that was given away while nobody was idle is answered once, by whoever comes first."""
    application = Application()
    with team(application) as workers:
        slow = [workers[0].connect() for _ in range(2)]
        for sock in slow:
            sock.sendall(GET % b"/")
        names = {read_answer(sock)[1] for sock in slow}
        while len(names) < 2:  # each worker is to have one of them
            slow[1].close()
            slow[1] = workers[0].connect()
            slow[1].sendall(GET % b"/")
            names = {names.pop(), read_answer(slow[1])[1]}
            slow[0].sendall(GET % b"/")
            names.add(read_answer(slow[0])[1])
        kept = kept_by(workers, names.copy().pop())
        for sock in slow:
            sock.sendall(GET % b"/slow")
            assert application.entered.acquire(timeout=20)
        kept.sendall(GET % b"/")
        kept.settimeout(0.1)
        with pytest.raises(TimeoutError):
            kept.recv(1)
        kept.settimeout(20)
        application.go.set()
        assert read_answer(kept)[1] in names
        for sock in (*slow, kept):
            sock.close()


def test_what_is_in_the_exchange_survives_its_workers():
    """The last worker that leaves answers what others have left."""
    application = Application()
    with team(application, size=1) as (worker,):
        first, second = worker.connect(), worker.connect()
        for sock in (first, second):
            sock.sendall(GET % b"/")
            read_answer(sock)
        first.sendall(GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        second.sendall(GET % b"/")
        deadline = time.monotonic() + 20
        while worker.slot.read(1e18).connections != 1:  # it was given away, to nobody yet
            assert time.monotonic() < deadline
        worker.retire()
        application.go.set()
        for sock in (first, second):
            assert b"200 OK" in read_all(sock)
            sock.close()
        assert worker.ended()


def test_the_last_of_what_was_left_is_the_end():
    """A worker that leaves and answers, without a connection of its own, what others have left, has left then."""
    application = Application()
    with team(application, size=1) as (worker,):
        told = threading.Event()
        worker.acceptor.on_retiring = told.set
        first, second = worker.connect(), worker.connect()
        for sock in (first, second):
            sock.sendall(GET % b"/")
            read_answer(sock)
        first.sendall(GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        second.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        deadline = time.monotonic() + 20
        while worker.slot.read(1e18).connections != 1:  # it was given away, to nobody yet
            assert time.monotonic() < deadline
        worker.retire()
        assert told.wait(20)  # before the application returns: nothing is taken in between
        application.go.set()
        for sock in (first, second):
            assert b"200 OK" in read_all(sock)
            sock.close()
        assert worker.ended()


def test_a_slow_reader_is_served_while_the_application_has_the_worker():
    """What waits for a client is sent in the background, whatever the application does."""
    application = Application()

    def large(environ, start_response):
        if environ["PATH_INFO"] == "/large":
            start_response("200 OK", [])
            return [b"x" * 20_000_000]
        return application(environ, start_response)

    large.go = application.go
    with team(large, size=1) as (worker,):
        lazy, slow = worker.connect(), worker.connect()
        lazy.sendall(GET % b"/large")
        assert lazy.recv(1)
        slow.sendall(GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        got = 1
        while got < 20_000_000:
            got += len(lazy.recv(1 << 20))
        assert not application.go.is_set()
        lazy.close()
        slow.close()


def test_closing_what_was_sent_waits_for_the_worker(tmp_path):
    """A download that ends while the application has the worker: its file is closed by nobody beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)
    application, closers = Application(), []

    def serve(environ, start_response):
        if environ["PATH_INFO"] != "/file":
            return application(environ, start_response)
        start_response("200 OK", [("Content-Length", "20000000")])
        file = path.open("rb")

        def close():
            file.close()
            closers.append((threading.current_thread(), application.go.is_set()))

        wrapper = environ["wsgi.file_wrapper"](file)
        wrapper.close = close
        return wrapper

    serve.go = application.go
    with team(serve, size=1) as (worker,), worker.connect() as sock, worker.connect() as slow:
        sock.sendall(GET % b"/file")
        sock.recv(1)
        slow.sendall(GET % b"/slow")
        assert application.entered.acquire(timeout=20)
        rest = 20_000_000
        while rest > 0:
            rest -= len(sock.recv(1 << 20))
        sock.close()
        application.go.set()
        read_answer_head(slow)
        deadline = time.monotonic() + 20
        while not closers:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert closers == [(worker.thread, True)]


def read_answer_head(sock):
    """Read until the end of a head."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)


def test_threads_answer_side_by_side():
    """With workers.threads, one worker has as many requests in the application at once."""
    application = Application()
    whole = Settings(workers=WorkersSettings(threads=3))
    with team(application, size=1, whole=whole) as (worker,):
        slow = [worker.connect() for _ in range(3)]
        for sock in slow:
            sock.sendall(GET % b"/slow")
        for _ in slow:
            assert application.entered.acquire(timeout=20)
        fourth = worker.connect()
        fourth.sendall(GET % b"/" + GET % b"/second")
        assert worker.slot.read(1e18).busy_since is not None
        application.go.set()
        for sock in slow:
            assert read_answer(sock)[1].startswith(b"preforkd-thread-")
        assert read_answers(fourth, 2).count(b"\npreforkd-thread-") == 2
        for sock in (*slow, fourth):
            sock.close()
        deadline = time.monotonic() + 20
        while worker.slot.read(1e18).busy_since is not None:
            assert time.monotonic() < deadline


def test_a_worker_without_free_threads_gives_away():
    """A kept connection of a worker whose threads are all busy is answered by another worker."""
    application = Application()
    with team(application, whole=Settings(workers=WorkersSettings(threads=2))) as workers:
        kept = [workers[0].connect() for _ in range(8)]
        for sock in kept:
            sock.sendall(GET % b"/")
            read_answer(sock)
        slow = [workers[0].connect() for _ in range(3)]
        for sock in slow:
            sock.sendall(GET % b"/slow")
            assert application.entered.acquire(timeout=20)
        for sock in kept:  # three of four threads are taken
            sock.sendall(GET % b"/")
            assert b"thread" in read_answer(sock)[1]
        application.go.set()
        for sock in (*slow, *kept):
            sock.close()


def test_a_failing_thread_ends_its_connection_only(caplog):
    """500, and the thread goes on."""

    class Fails(Application):
        def __call__(self, environ, start_response):
            raise KeyError("boom")

    whole = Settings(workers=WorkersSettings(threads=2), http=HttpSettings(keep_alive=5))
    with team(Fails(), size=1, whole=whole) as (worker,):
        for _ in range(4):
            assert worker.ask(GET % b"/").startswith(b"HTTP/1.1 500 ")
    assert caplog.text.count("the application failed") == 4


def test_without_room_in_the_exchange_a_connection_stays():
    """It is answered by its own worker as soon as that is free."""
    application = Application()
    ends = pair()
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    ends[0].setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ends[0].send(b"x" * 500)
    worker = Worker(application, "wsgi", handoff=HandoffQueue(*ends))
    worker.acceptor._sources.pop()  # it would read the padding
    slow, kept = worker.connect(), worker.connect()
    for sock in (slow, kept):
        sock.sendall(GET % b"/")
        read_answer(sock)
    slow.sendall(GET % b"/slow")
    assert application.entered.acquire(timeout=20)
    kept.sendall(GET % b"/" + GET % b"/")
    application.go.set()
    assert read_answer(slow)[1]
    assert read_answers(kept, 2)
    with contextlib.suppress(BlockingIOError):
        while True:
            ends[1].recv(500)
    for sock in (slow, kept):
        sock.close()
    worker.close()
    for end in ends:
        end.close()


@contextmanager
def asleep(worker, last=False):
    """Have a worker not look at what comes meanwhile, and then see all of it at once.

    ``last``: it is told of its connections first, and of what it shares with others last.
    """
    acceptor, waits, go = worker.acceptor, threading.Event(), threading.Event()
    poll, held = acceptor.poll, worker.loop._connections

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
def test_who_is_woken_and_cannot_come_passes_on_what_he_was_woken_for(last):
    """A connection, or a handed, for which the kernel woke this worker only does not wait for his application."""
    application = Application()
    with team(application, size=1) as (worker,):
        handoff = worker.loop._handoff
        kept = worker.connect()
        kept.sendall(GET % b"/")
        assert read_answer(kept)[1]
        with asleep(worker, last):
            new = worker.connect()
            new.sendall(GET % b"/new")
            kept.sendall(GET % b"/slow")
            (held,) = worker.loop._connections
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
        with asleep(worker, last):
            assert handoff.put(received.connection, received.sock.fileno(), received.body)
            received.close()
            kept.sendall(GET % b"/slow")
            assert select.select([held], [], [], 20)[0]
        assert application.entered.acquire(timeout=20)
        deadline = time.monotonic() + 20
        while not worker.loop._taken_over or worker.loop._woken_for:
            assert time.monotonic() < deadline
        assert select.select([handoff.fileno()], [], [], 20)[0]
        again = handoff.get()
        assert again.connection == received.connection
        again.close()
        application.go.set()
        assert read_answer(kept)[1]
        kept.close()
        new.close()


def test_what_was_accepted_first_is_answered_first():
    """A free worker turns to what others have left before it accepts, however much waits at the listener."""
    application = Application()
    order = []

    def noted(environ, start_response):
        order.append(environ["PATH_INFO"])
        return application(environ, start_response)

    noted.go = application.go
    with team(noted, size=1) as (worker,):
        handoff = worker.loop._handoff
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
