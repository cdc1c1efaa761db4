"""Handoffs: a complete request does not wait behind a long one while another worker is idle."""

import contextlib
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from preforkd.http.bounds import Budget
from preforkd.ipc.handoff import HandoffQueue, pair
from preforkd.worker.wsgi.handoff import Handoff
from preforkd.worker.wsgi.outbox import OutputLimits
from tests.worker.handoffs import (
    GET,
    SlowApplication,
    connection_held_by,
    read_answers,
    workers_sharing_a_queue,
)
from tests.worker.serving import Worker, read_all, read_answer
from tests.worker.wsgi.connecting import connected


@pytest.mark.parametrize(
    ("size", "spool"), [(0, 1 << 20), (10, 1 << 20), (300_000, 1 << 20), (300_000, 1000)]
)
def test_a_kept_connection_does_not_wait_behind_a_long_request(size, spool):
    """Its request, with a body in memory or in a file and pipelined bytes, goes to an idle worker."""
    application = SlowApplication()
    with workers_sharing_a_queue(application, spool=spool) as workers:
        slow = workers[0].connect()
        slow.sendall(GET % b"/")
        busy = read_answer(slow)[1]
        kept = connection_held_by(workers, busy)
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


def test_a_request_completed_during_a_takeover_is_handed_off():
    """The takeover thread reads while the application blocks the main thread."""
    application = SlowApplication()
    with workers_sharing_a_queue(application) as workers:
        slow = workers[0].connect()
        slow.sendall(GET % b"/")
        busy = read_answer(slow)[1]
        kept = connection_held_by(workers, busy)
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


def test_the_first_idle_worker_takes_a_handoff():
    """A request that was queued while no worker was idle is answered once, by the first that is."""
    application = SlowApplication()
    with workers_sharing_a_queue(application) as workers:
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
        kept = connection_held_by(workers, names.copy().pop())
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


def test_queued_handoffs_survive_their_workers():
    """The last worker to retire answers the connections in the queue."""
    application = SlowApplication()
    with workers_sharing_a_queue(application, size=1) as (worker,):
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


def test_the_last_worker_serves_the_queue_before_it_exits():
    """A retiring worker without connections serves the queue, and exits afterwards without an event."""
    application = SlowApplication()
    with workers_sharing_a_queue(application, size=1) as (worker,):
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


def test_output_is_sent_during_a_takeover():
    """Kept output is sent while the application blocks the main thread."""
    application = SlowApplication()

    def large(environ, start_response):
        if environ["PATH_INFO"] == "/large":
            start_response("200 OK", [])
            return [b"x" * 20_000_000]
        return application(environ, start_response)

    large.go = application.go
    with workers_sharing_a_queue(large, size=1) as (worker,):
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


def test_close_of_an_answer_waits_for_the_main_thread(tmp_path):
    """A download that ends during a takeover: its file is not closed by the takeover thread."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)
    application, closers = SlowApplication(), []

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
    with (
        workers_sharing_a_queue(serve, size=1) as (worker,),
        worker.connect() as sock,
        worker.connect() as slow,
    ):
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


def test_a_connection_stays_when_the_queue_is_full():
    """It is answered by its own worker when that is idle."""
    application = SlowApplication()
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


class Queue:
    """A worker's end of a queue, with its acceptor and its listener, and a connection to be given."""

    def __init__(self, connection):
        self.connection, self.retiring, self.rearmed, self.sources = connection, False, [], []
        self.queue = HandoffQueue(*pair())
        self.add_source, self.rearm = self.sources.append, self.rearmed.append
        self.listeners = [SimpleNamespace(contexts=(connection.context, None))]
        limits = OutputLimits(write_timeout=5, budget=Budget())
        self.handoff = Handoff(self.queue, self, self.listeners, limits)

    def request(self, body=b"", behind=b""):
        """Let a request with this body be in hand, and this input behind it."""
        head = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.connection.engine.receive(head + body + behind)
        assert self.connection.take_request()

    def take(self):
        taken = self.handoff.take()
        assert taken is not None
        return taken


@pytest.fixture(params=[1 << 20], ids=["in memory"])
def queue(request):
    """A queue of one worker; afterwards no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))
    with connected(spool=request.param) as (connection, client):
        queue = Queue(connection)
        queue.client = client
        yield queue
        queue.queue.close()
        if connection.request is not None:
            connection.request.body.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_queue_is_polled_like_a_listener(queue):
    """While accepting is enabled."""
    assert queue.sources == [queue.handoff.fileno()]
    assert queue.handoff.fileno() in queue.handoff.descriptors()
    assert queue.handoff.take() is None
    assert queue.handoff.pass_on() is None
    assert queue.rearmed == []


@pytest.mark.parametrize("ended", [False, True])
def test_a_connection_is_taken_as_it_was_given(queue, ended):
    """Its client, the number of its requests, the request in hand, and the input behind it."""
    queue.connection.served = 3
    queue.request(b"body", GET % b"/next")
    if ended:
        queue.connection.engine.receive(b"")
    assert queue.handoff.give(queue.connection)
    taken = queue.take()
    assert queue.rearmed == [queue.handoff.fileno()]
    assert (taken.remote, taken.remote_port, taken.served) == ("192.0.2.1", "4000", 3)
    assert taken.request.cached.head.target == b"/p"
    assert (taken.request.body.read(), taken.request.length) == (b"body", 4)
    assert taken.engine.end_of_input is ended
    taken.engine.answer_ended(keep=True)
    assert taken.take_request()
    assert taken.request.cached.head.target == b"/next"
    taken.sock.send(b"answer")
    assert queue.client.recv(9) == b"answer"
    taken.close()


@pytest.mark.parametrize("queue", [1 << 20, 10], ids=["in memory", "in a file"], indirect=True)
@pytest.mark.parametrize("size", [0, 1, 96 * 1024, 96 * 1024 + 1, 500_000])
def test_a_body_of_any_size_is_handed_off(queue, size):
    """In the message, as a memory file, or as the file in which it is."""
    queue.request(b"x" * size)
    assert queue.handoff.give(queue.connection)
    taken = queue.take()
    assert taken.request.length == size
    assert taken.request.body.read() == b"x" * size
    taken.close()


def test_a_body_and_what_is_behind_it_share_the_message(queue):
    """As much as fits; more input behind a request stays with it."""
    behind = (GET % b"/next") * 2000
    queue.request(b"x" * (96 * 1024 - len(behind) + 1), behind)
    assert queue.handoff.give(queue.connection)
    taken = queue.take()
    assert taken.request.body.read() == b"x" * taken.request.length
    assert taken.engine.buffer == behind
    taken.close()


def test_when_a_connection_stays(queue):
    """With TLS, at a drain, with too much input behind its request, and where the queue is full."""
    queue.request(b"body", b"x" * 96 * 1024)
    assert queue.handoff.give(queue.connection)
    queue.take().close()
    queue.connection.secure = object()
    assert not queue.handoff.give(queue.connection)
    queue.connection.secure, queue.retiring = None, True
    assert not queue.handoff.give(queue.connection)
    queue.retiring = False
    queue.connection.engine.receive(b"x")
    assert not queue.handoff.give(queue.connection)
    assert queue.handoff.take() is None
    with connected() as (other, _):
        other.engine.receive(GET % b"/")
        assert other.take_request()
        given = 0
        while queue.handoff.give(other):
            given += 1
        assert given > 0
        for _ in range(given):
            queue.take().close()


def test_a_worker_that_is_busy_passes_a_connection_on(queue, monkeypatch):
    """It goes back into the queue; where that is full, this worker keeps it."""
    queue.request(b"body")
    assert queue.handoff.give(queue.connection)
    assert queue.handoff.pass_on() is None
    assert queue.rearmed == []
    taken = queue.take()
    assert taken.request.body.read() == b"body"
    taken.close()
    assert queue.handoff.give(queue.connection)
    monkeypatch.setattr(queue.queue, "put", lambda *_: False)
    kept = queue.handoff.pass_on()
    assert kept.request.body.read() == b"body"
    kept.close()


def test_a_connection_that_cannot_be_taken_is_closed(queue, caplog):
    """The worker goes on, and logs why."""
    queue.request(b"x" * 100_000)
    assert queue.handoff.give(queue.connection)
    queue.listeners.clear()
    assert queue.handoff.take() is None
    assert "cannot take over a connection from another worker" in caplog.text
    assert caplog.records[0].name == "preforkd.app"
