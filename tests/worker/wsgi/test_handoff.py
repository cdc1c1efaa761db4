"""Handoffs: a complete request does not wait behind a long one while another worker is idle."""

import contextlib
import socket
import threading
import time

import pytest

from preforkd.ipc.handoff import HandoffQueue, pair
from tests.worker.handoffs import (
    GET,
    SlowApplication,
    connection_held_by,
    read_answers,
    workers_sharing_a_queue,
)
from tests.worker.serving import Worker, read_all, read_answer


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
