"""Limits of the WSGI server: requests, rates of bodies, the spool."""

import contextlib
import select
import threading
import time

import pytest

from preforkd.config.settings import (
    HttpSettings,
    Settings,
)
from preforkd.http.body import BudgetError, StorageError
from preforkd.http.states import State
from preforkd.worker.wsgi.connection import Waiting
from preforkd.worker.wsgi.reading import Reading
from preforkd.worker.wsgi.records import Records
from tests.worker.http_settings import (
    CLOSE,
    GET,
    show_client,
)
from tests.worker.serving import read_all, read_answer, serving
from tests.worker.wsgi import connecting
from tests.worker.wsgi.connecting import connected


def test_max_requests_closes_the_connection():
    """The last request gets Connection: close."""
    with serving(show_client, max_requests=3) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b"") * 5)
        answers = read_all(sock)
        assert answers.count(b"200 OK") == 3
        assert answers.count(b"Connection: close") == 1


def test_pipelined_requests_delay_no_other_connection():
    """Another client is answered between the requests of a pipeline that has arrived."""
    order = []
    held, flood_is_there, both_have_asked = threading.Event(), threading.Event(), threading.Event()

    def note(environ, start_response):
        order.append(environ["PATH_INFO"])
        if order[-1] == "/hold":
            held.set()
            flood_is_there.wait(20)
        elif order[-1] == "/flood":
            both_have_asked.wait(20)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    with serving(note) as worker, worker.connect() as flood, worker.connect() as other:
        for sock in (flood, other):
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
        with worker.connect() as holder:
            holder.sendall(GET % (b"/hold", b""))
            assert held.wait(20)
            flood.sendall(GET % (b"/flood", b"") * 300)
            flood_is_there.set()
            while "/flood" not in order:
                assert worker.thread.is_alive()
            other.sendall(GET % (b"/other", b""))
            both_have_asked.set()
            read_answer(other)
        answers = b""
        while answers.count(b"200 OK") < 300:
            answers += flood.recv(1 << 20)
    assert order.index("/other") < 50


def test_a_body_below_the_minimum_rate_is_refused():
    """A body below http.min_rate gets 408 after body_timeout."""
    with serving(show_client, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < begun + 20
                sock.sendall(b"x")
                threading.Event().wait(0.02)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_minimum_rate_holds_in_every_window(chunked):
    """A fast beginning of a body does not make up for single bytes afterwards."""
    head, part = b"Content-Length: 900000\r\n\r\n" + b"x" * 500_000, b"x"
    if chunked:
        head = b"Transfer-Encoding: chunked\r\n\r\n7a120\r\n" + b"x" * 500_000 + b"\r\n"
        part = b"1\r\nx\r\n"
    with serving(show_client, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\n" + head)
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < begun + 20
                sock.sendall(part)
                threading.Event().wait(0.02)


def test_a_body_at_the_minimum_rate_is_served():
    """Over several windows of body_timeout."""
    with serving(show_client, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n")
        for _ in range(40):
            sock.sendall(b"x" * 100)
            threading.Event().wait(0.02)
        assert b"200 OK" in sock.recv(1000)


def test_spool_total_bounds_all_bodies_of_a_worker(caplog):
    """A body beyond it gets 503, logged once; a client that leaves releases its part."""
    settings = Settings(http=HttpSettings(spool=10, max_body=1000, spool_total=1000))
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\nConnection: close\r\n\r\n"
    with serving(show_client, whole=settings) as worker:

        def ask_until(status):
            deadline = time.monotonic() + 20
            while not worker.ask(head + b"x" * 900).startswith(b"HTTP/1.1 %d " % status):
                assert time.monotonic() < deadline  # the other was not read, or not missed, yet

        with worker.connect() as slow:
            slow.sendall(head + b"x" * 800)
            ask_until(503)
            ask_until(503)
        ask_until(200)
    assert caplog.text.count("request bodies use all of http.spool_total") == 1


def test_a_full_disk_fails_one_request(monkeypatch, caplog):
    """It gets 503, and the next request is served."""

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preforkd.http.body.tempfile.TemporaryFile", full)
    with serving(show_client, spool=10) as worker:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n"
        assert worker.ask(head + b"x" * 20).startswith(b"HTTP/1.1 503 ")
        assert b"200 OK" in worker.ask(GET % (b"/", CLOSE))
    assert "No space left" in caplog.text


class Held:
    """The connections of a loop, as far as reading uses them: what each waits for is kept."""

    def __init__(self):
        self.deadlines, self.events, self.set_again = self, [], 0

    def set(self, connection, kind):
        self.set_again += connection.waiting is kind
        connection.waiting = kind

    def clear(self, connection):
        connection.waiting = None

    def register(self, _connection, events):
        self.events.append(events)


class Scene:
    """A reading with a connection, on a clock of the test; ``errors`` are the refusals that were sent."""

    def __init__(self, connection, monkeypatch, **limits):
        self.connection, self.held, self.errors, self.now = connection, Held(), [], 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.reading = Reading(self.held, Records(None), self, HttpSettings(**limits))

    def send_error(self, connection, status, reason):
        assert connection is self.connection
        self.errors.append((status, reason))
        return 7

    def take(self, data):
        """Return whether there is a complete request behind this data; what it waits for if not."""
        self.reading.take(self.connection, data)
        found = self.reading.next_request(self.connection)
        if not found and not self.errors:
            self.reading.wait(self.connection)
        return found


@pytest.fixture
def scene(monkeypatch):
    with connected() as (connection, client):
        scene = Scene(connection, monkeypatch, body_timeout=5.0, min_rate=10)
        scene.client = client
        yield scene


def test_what_an_incomplete_request_waits_for(scene):
    """The first byte or the rest of a head, the rest of a body, and another request."""
    connection = scene.connection
    assert not scene.take(b"\r\n")
    assert connection.waiting is Waiting.FIRST_REQUEST
    assert not scene.take(b"POST /p HTTP/1.1\r\nHost: h\r\n")
    assert connection.waiting is Waiting.FIRST_REQUEST
    assert scene.held.set_again == 0  # a head has its timeout as a whole
    assert not scene.take(b"Content-Length: 4\r\n\r\na")
    assert connection.waiting is Waiting.BODY
    assert not scene.take(b"b")
    assert scene.held.set_again == 1  # each part of a body has it again
    assert scene.take(b"cd")
    assert connection.waiting is None
    assert set(scene.held.events) == {select.EPOLLIN}
    connection.served = 1
    connection.engine.answer_ended(keep=True)
    scene.reading.wait(connection)
    assert connection.waiting is Waiting.NEXT_REQUEST
    assert not scene.take(b"GET /half")
    assert connection.waiting is Waiting.FIRST_REQUEST


def test_a_client_that_waits_for_it_gets_100_continue_once(scene):
    """When its body is waited for."""
    head = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    assert not scene.take(head)
    assert scene.client.recv(99) == b"HTTP/1.1 100 Continue\r\n\r\n"
    scene.reading.wait(scene.connection)
    assert not scene.take(b"a")
    scene.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        scene.client.recv(99)


def test_a_request_that_cannot_be_served_is_refused(scene):
    """With the status of what is wrong, and no more is read."""
    assert not scene.take(b"NONSENSE\r\n\r\n")
    ((status, reason),) = scene.errors
    assert status == "400 Bad Request"
    assert reason
    assert scene.connection.engine.server is not State.IDLE


@pytest.mark.parametrize(("size", "refused"), [(48, True), (49, False)])
def test_a_body_that_is_too_slow_is_refused_behind_its_window(scene, size, refused):
    """min_rate bytes for each second of body_timeout."""
    assert not scene.take(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n")
    scene.now += 4.9
    assert not scene.take(b"x")
    assert scene.errors == []
    scene.now += 0.2
    assert not scene.take(b"x" * size)
    expected = [("408 Request Timeout", "the body arrives too slowly")]
    assert scene.errors == (expected if refused else [])
    if not refused:
        scene.now += 4.9  # the next window has begun at 5.1 s
        assert not scene.take(b"x")
        assert scene.errors == []


def test_an_error_of_the_disk_is_logged_each_time_and_an_exhausted_budget_once_a_minute(
    scene, monkeypatch, caplog
):
    """Clients can cause the latter."""
    error = BudgetError("all of it is used")

    def fails():
        raise error

    monkeypatch.setattr(type(scene.connection), "take_request", lambda _: fails())
    refusals = []
    monkeypatch.setattr(scene.reading, "refuse", lambda *given: refusals.append(given[1:]))
    logged = []
    for now in (0.0, 59.9, 60.0, 119.9, 120.1):
        scene.now = now
        assert not scene.reading.next_request(scene.connection)
        logged.append(len(caplog.records))
    assert logged == [1, 1, 2, 2, 3]
    assert set(refusals) == {("503 Service Unavailable", "the request cannot be stored")}
    error = StorageError("the disk is full")
    for _ in range(2):
        scene.reading.next_request(scene.connection)
    assert len(caplog.records) == 5
    assert {record.name for record in caplog.records} == {"preforkd.app"}


def test_a_refusal_frees_the_body_first(scene):
    """A disk that it filled has space again before the client retries."""
    assert not scene.take(connecting.POST + b"ab")
    budget = scene.connection.context.bounds.budget
    left = budget._left["memory"]
    scene.reading.refuse(scene.connection, "400 Bad Request", "x")
    assert budget._left["memory"] == left + 2
    assert scene.errors == [("400 Bad Request", "x")]
    assert scene.connection.engine.server is State.MUST_CLOSE
