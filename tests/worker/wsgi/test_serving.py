"""Requests and timeouts of the WSGI server, over a real socket."""

import contextlib
import random
import select
import socket
import struct
import threading
import time
from wsgiref.validate import validator

import pytest

from preforkd.config.settings import AccessLogSettings
from preforkd.http.proxy_header import ProxyHeaderError
from preforkd.worker.wsgi import takeover
from preforkd.worker.wsgi.connection import Waiting
from preforkd.worker.wsgi.response import ClientGoneError
from tests.worker.handoffs import workers_sharing_a_queue
from tests.worker.serving import read_all, read_answer, serving, wait_until
from tests.worker.wsgi.connecting import connected
from tests.worker.wsgi.requests import CLOSE, GET, echo, read_body, unread_bytes
from tests.worker.wsgi.serving_scene import ANSWER, Scene


@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
def test_wsgiref_validator_finds_no_violation(caplog):
    """For GET, POST, HEAD, a chunked body and a query; nothing is logged."""
    with serving(validator(echo)) as worker:
        answer = worker.ask(GET % (b"/a%20b?c=d", CLOSE))
        assert b"200 OK" in answer
        assert b"GET /a b " in answer
        body = b"5\r\nhello\r\n0\r\n\r\n"
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\n" + CLOSE
        assert b"POST / hello" in worker.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert b"POST / abc" in worker.ask(head + b"Content-Length: 3\r\n\r\nabc")
        assert worker.ask(b"HEAD" + (GET % (b"/", CLOSE))[3:]).endswith(b"\r\n\r\n")
    assert not caplog.records


def test_one_connection_serves_request_after_request():
    """Kept, pipelined, and closed on the client's request; each request counts once in the slot."""
    with serving(echo) as worker, worker.connect() as sock:
        for number in range(3):
            sock.sendall(GET % (b"/%d" % number, b""))
            assert read_answer(sock)[1] == b"GET /%d " % number
        sock.sendall(GET % (b"/x", b"") + GET % (b"/y", CLOSE))
        rest = read_all(sock)
        assert rest.count(b"200 OK") == 2
        assert rest.index(b"GET /x") < rest.index(b"GET /y")
        reading = worker.slot.read(1e18)
        assert (reading.requests, reading.accepted) == (5, 1)


@pytest.mark.parametrize("method", [b"POST", b"GET", b"DELETE"])
@pytest.mark.parametrize("size", [1, 500, 4000, 4096, 5000, 65536, 256 << 10, 300_000])
def test_a_body_arrives_complete_in_whatever_pieces(method, size):
    """In one piece, cut at the edges of buffers, and followed by another request."""
    body = random.Random(size).randbytes(size)
    head = method + b" /%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
    cuts = {0, 1, 4095, 4096, 4097, size // 2, size}
    with serving(echo) as worker, worker.connect() as sock, sock.makefile("rb") as answers:
        for number, cut in enumerate(sorted(cuts)):
            message = head % (number, size) + body
            here = len(message) - size + cut
            sock.sendall(message[:here])
            if number % 2:
                # The first piece is received before the rest is sent.
                wait_until(
                    lambda: not any(map(unread_bytes, list(worker.loop._connections.by_descriptor)))
                )
            sock.sendall(message[here:] + GET % (b"/next", b""))
            told = method + b" /%d " % number
            assert read_body(answers) == told + body
            assert read_body(answers) == b"GET /next "
        wait_until(lambda: worker.slot.read(1e18).requests == 2 * len(cuts))


def test_a_half_closed_connection_is_answered():
    """The client has shut down its sending side, as nc does."""
    with serving(echo) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        sock.shutdown(socket.SHUT_WR)
        assert b"GET / " in read_all(sock)


def test_expect_100_continue_is_answered():
    """The client then sends its body, and is answered."""
    with serving(echo) as worker, worker.connect() as sock:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        sock.sendall(head)
        assert sock.recv(999) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ok")
        assert read_answer(sock)[1] == b"POST / ok"


def test_slow_senders_delay_no_other_request():
    """A complete request is answered while fifty others are half sent."""
    with serving(echo) as worker:
        slow = [worker.connect() for _ in range(50)]
        for sock in slow:
            sock.sendall(b"GET / HTTP/1.1\r\nHo")
        assert b"GET /fast" in worker.ask(GET % (b"/fast", CLOSE))
        slow[7].sendall(b"st: h\r\n\r\n")
        assert read_answer(slow[7])[1] == b"GET / "
        for sock in slow:
            sock.close()


def test_a_slow_reader_delays_no_other_request():
    """The next client is answered while an answer of 20 MB is unread."""

    def large(environ, start_response):
        start_response("200 OK", [])
        return [b"x" * (20_000_000 if environ["PATH_INFO"] == "/large" else 1)]

    with serving(large) as worker, worker.connect() as lazy:
        lazy.sendall(GET % (b"/large", b""))
        assert worker.ask(GET % (b"/small", CLOSE)).endswith(b"\r\n\r\nx")
        assert len(read_answer(lazy)[1]) == 20_000_000


def test_a_stream_is_produced_as_fast_as_it_is_read():
    """50 MB without a spool: the application is blocked until the client reads."""
    produced = []

    def stream(environ, start_response):
        start_response("200 OK", [("Content-Length", str(50 << 20))])
        for _ in range(50):
            produced.append(1)
            yield b"x" * (1 << 20)

    with serving(stream, answer_spool=0) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", CLOSE))
        first = sock.recv(1000)
        assert len(produced) < 30
        assert len(first) + len(read_all(sock)) > 50 << 20


def test_invalid_input_is_answered_with_400():
    """The answer arrives although unread input would make the kernel send a reset."""
    with serving(echo) as worker:
        answer = worker.ask(b"NONSENSE\r\n\r\n" + b"x" * 200_000)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1") == 1
        assert b"GET / " in worker.ask(GET % (b"/", CLOSE))


@pytest.mark.parametrize("body", [b"", b"x" * 40])
def test_each_request_has_its_own_timeout(body):
    """A client that always sends half of its next request with the current one is not timed out."""
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    half = len(request) - 20
    with serving(echo, header_timeout=0.3, body_timeout=0.3, min_rate=1) as worker:
        end = time.monotonic() + 1.0
        with worker.connect() as sock:
            sock.sendall(request[:half])
            while time.monotonic() < end:
                sock.sendall(request[half:] + request[:half])
                assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")


def test_resets_end_their_connection_only(caplog):
    """A reset before, during and after a request is logged at debug level only."""
    with serving(echo) as worker:
        for data in (b"", b"GET / HT", GET % (b"/", b"")):
            sock = worker.connect()
            sock.sendall(data)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        assert b"GET / " in worker.ask(GET % (b"/", CLOSE))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_each_wait_for_input_has_a_timeout():
    """Half a head gets 408; a silent and an idle connection are closed."""
    with serving(echo, header_timeout=0.2, keep_alive=0.2) as worker:
        assert worker.ask(b"GET / HT").startswith(b"HTTP/1.1 408 ")
        assert worker.ask(b"") == b""
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            assert b"keep" not in read_all(sock)


def test_empty_lines_do_not_renew_a_timeout():
    """A client that sends empty lines only is closed after the timeout of an idle one."""
    with serving(echo, keep_alive=0.5, header_timeout=0.5) as worker:
        for request in (b"", GET % (b"/", b"")):
            with worker.connect() as sock:
                sock.sendall(request)
                if request:
                    read_answer(sock)
                begun = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    while sock.send(b"\r\n"):
                        assert time.monotonic() < begun + 20
                        time.sleep(0.02)


def test_a_stalled_body_is_answered_with_408():
    """After http.body_timeout without another part."""
    with serving(echo, body_timeout=0.2) as worker:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"
        assert worker.ask(head).startswith(b"HTTP/1.1 408 ")


def test_what_was_written_and_a_list_of_one_are_one_answer():
    """The last chunk ends it, so that the next request of the connection is answered after it."""

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"ab")
        return [b"cde"]

    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    with serving(application) as worker, worker.connect() as sock:
        for _ in range(2):
            sock.sendall(request)
            data = b""
            while not data.endswith(b"\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"):
                piece = sock.recv(65536)
                assert piece, data
                data += piece
            assert data.count(b"HTTP/1.1 200 ") == 1


class Together:
    """An application that two kept clients ask in one turn: a request to /both lets both send theirs.

    ``during_second`` is called in the application for the second of them, with both clients.
    """

    def __init__(self, during_second):
        self.during_second = during_second
        self.clients = []
        self.go = threading.Event()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/both":
            for number, client in enumerate(self.clients):
                client.sendall(GET % (b"/%d" % number, b""))
        elif path == "/1":
            self.during_second(*self.clients)
        start_response("200 OK", [("Content-Length", str(len(path)))])
        return [path.encode()]

    @contextlib.contextmanager
    def asked(self, **settings):
        """Ask; the worker has a handoff queue, so that a takeover thread can run its loop."""
        with (
            workers_sharing_a_queue(self, size=1, **settings) as (worker,),
            worker.connect() as first,
            worker.connect() as second,
        ):
            for client in (first, second):
                client.sendall(GET % (b"/", b""))
                read_answer(client)
            self.clients += first, second
            worker.ask(GET % (b"/both", CLOSE))
            yield


def test_answers_of_one_turn_are_sent_together(monkeypatch):
    """Behind all requests that have arrived: between two of them a send would cost more."""
    monkeypatch.setattr(takeover, "_LONG", 20.0)
    seen = []
    together = Together(lambda *clients: seen.append(select.select(clients, [], [], 0)[0]))
    with together.asked():
        assert [read_answer(client)[1] for client in together.clients] == [b"/0", b"/1"]
    assert seen == [[]]


def test_an_answer_of_one_turn_does_not_wait_for_a_long_request():
    """The takeover thread sends it."""
    arrived, in_time = threading.Event(), []
    together = Together(lambda *_clients: in_time.append(arrived.wait(20.0)))
    with together.asked():
        first, second = together.clients
        assert read_answer(first)[1] == b"/0"
        arrived.set()
        assert read_answer(second)[1] == b"/1"
    assert in_time == [True]


def test_an_answer_is_sent_when_the_next_request_of_the_turn_fails():
    """Also by an exception with which the worker retires."""

    def fail(*_clients):
        raise SystemExit

    together = Together(fail)
    with together.asked():
        first, second = together.clients
        assert read_answer(first)[1] == b"/0"
        assert read_answer(second)[0].startswith("HTTP/1.1 500 ")


def test_answers_of_one_turn_are_logged_when_they_are_sent(tmp_path):
    """Each once, with its length."""
    log = tmp_path / "log"
    access = AccessLogSettings(target=str(log))
    together = Together(lambda *_clients: None)
    with together.asked(access=access):
        assert [read_answer(client)[1] for client in together.clients] == [b"/0", b"/1"]
    sent = [line.split('"')[1:3] for line in log.read_text().splitlines()]
    assert sorted((request.split()[1], end.split()) for request, end in sent) == [
        ("/", ["200", "1"]),
        ("/", ["200", "1"]),
        ("/0", ["200", "2"]),
        ("/1", ["200", "2"]),
        ("/both", ["200", "5"]),
    ]


@pytest.fixture
def scene(monkeypatch):
    with select.epoll() as epoll, connected() as (connection, client):
        scene = Scene(connection, monkeypatch, epoll)
        scene.client = client
        yield scene
        scene.held.close(connection)


SHORT = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


def test_a_pipeline_is_answered_in_turn_with_other_connections(scene):
    """Sixteen of its requests at a time; the next one waits for the application."""
    scene.connection.engine.receive(b"".join(SHORT % number for number in range(20)))
    scene.serving.advance(scene.connection)
    assert len(scene.answered) == 16
    assert list(scene.held.ready) == [scene.connection]
    assert (scene.connection.waiting, scene.connection.registered) == (None, 0)
    scene.held.ready.clear()
    scene.serving.advance(scene.connection)
    assert [target for target, _ in scene.answered] == [b"/%d" % number for number in range(20)]
    assert scene.connection.waiting is Waiting.NEXT_REQUEST
    assert not scene.held.ready


@pytest.mark.parametrize("gives", [False, True])
def test_a_request_that_is_complete_while_the_application_runs(scene, gives):
    """Another worker takes it, and this one closes its copy; or it waits here."""
    scene.free, scene.gives = False, gives
    scene.wait(Waiting.FIRST_REQUEST)
    scene.connection.engine.receive(SHORT % 1)
    scene.serving.advance(scene.connection)
    assert scene.answered == []
    assert scene.taken == ([scene.connection] if gives else [])
    assert scene.closed is gives
    assert list(scene.held.ready) == ([] if gives else [scene.connection])
    if not gives:
        assert (scene.connection.waiting, scene.connection.registered) == (None, 0)


def test_a_request_behind_a_pipeline_is_not_handed_over(scene):
    """The application is free: it is this worker's turn again soon."""
    scene.gives = True
    scene.connection.engine.receive(b"".join(SHORT % number for number in range(20)))
    scene.serving.advance(scene.connection)
    assert scene.taken == []
    assert list(scene.held.ready) == [scene.connection]


@pytest.mark.parametrize(
    ("error", "level", "retired"),
    [
        (ClientGoneError("left"), "DEBUG", 0),
        (ProxyHeaderError("no header"), "DEBUG", 0),
        (OSError(104, "reset"), "DEBUG", 0),
        (AssertionError("a defect"), "ERROR", 0),
        (KeyboardInterrupt(), "ERROR", 1),
    ],
)
def test_an_error_ends_its_connection(scene, error, level, retired, caplog):
    """One of the client is no message for the administrator; the application's retires the worker."""
    caplog.set_level("DEBUG")
    scene.connection.outbox.held = b"held"

    scene.serving.fail(scene.connection, error)
    assert scene.closed
    assert scene.client.recv(9) == b"held"
    assert [record.levelname for record in caplog.records] == [level]
    assert (scene.retired, scene.recovered) == (retired, retired)
    assert caplog.records[0].name == "preforkd.app"


def test_a_step_gets_its_arguments_and_its_error_stays_here(scene):
    """Other connections are served on."""
    seen = []

    def step(connection, *given):
        seen.append((connection, given))
        raise ClientGoneError

    scene.serving.guarded(step, scene.connection, 1, 2)
    assert seen == [(scene.connection, (1, 2))]
    assert scene.closed


def ask(scene, connection, client, data=SHORT % 1):
    """Let a request arrive on an idle connection, and be read."""
    scene.held.wait(connection, Waiting.NEXT_REQUEST, select.EPOLLIN)
    client.sendall(data)
    scene.serving.read(connection)


def test_what_is_held_back(scene):
    """Answers on kept connections, from the first one on for a millisecond, or until the turn ends."""
    scene.serving.holds = True
    with connected() as (second, other):
        scene.held.add(second)
        ask(scene, scene.connection, scene.client)
        scene.now += 0.0009
        scene.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            scene.client.recv(99)
        assert scene.connection.waiting is Waiting.NEXT_REQUEST
        scene.now = 100.0 + 0.001
        ask(scene, second, other)
        assert scene.client.recv(99) == ANSWER
        assert other.recv(99) == ANSWER
        ask(scene, second, other)
        assert second.outbox.held == ANSWER
        scene.serving.send_held()
        scene.serving.send_held()
        assert other.recv(999) == ANSWER
        ask(scene, second, other, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert other.recv(99) == ANSWER  # the last one is not held back
        scene.held.close(second)


def test_an_answer_outside_a_turn_is_sent_at_once(scene):
    """It is the only one; its connection's time for the next request begins again."""
    ask(scene, scene.connection, scene.client)
    assert scene.client.recv(99) == ANSWER
    assert scene.held.deadlines.of(Waiting.NEXT_REQUEST) == {scene.connection: 150.0}
    scene.now = 120.0
    ask(scene, scene.connection, scene.client)
    assert scene.held.deadlines.of(Waiting.NEXT_REQUEST) == {scene.connection: 170.0}


@pytest.mark.parametrize("size", [0, 10, 4000, 4096, 9000, 30_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_all_that_has_arrived_is_read_at_once(scene, size, chunked):
    """More than the buffer of the first receive, too: no further event is waited for."""
    body = bytes(range(250)) * (size // 250)
    head = b"POST /p HTTP/1.1\r\nHost: h\r\n"
    if chunked:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    else:
        data = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    scene.client.sendall(data)
    scene.serving.read(scene.connection)
    if len(data) < 16_384 or not chunked:
        assert scene.answered == [(b"/p", body)]


def test_an_answer_is_closed_when_it_is_sent(scene):
    """By the application, when it is free; until then the connection waits for its client."""
    closed = []
    scene.connection.engine.receive(SHORT % 1)
    assert scene.connection.take_request()
    scene.connection.request = None
    scene.connection.engine.answer_begun()
    scene.connection.engine.answer_ended(keep=True)
    scene.connection.after_sending = lambda: closed.append(1)
    scene.connection.outbox._keep(b"rest")
    scene.serving.advance(scene.connection)
    assert scene.connection.waiting is Waiting.WRITE
    assert scene.connection.registered == select.EPOLLOUT
    scene.free = False
    scene.serving.on_event(scene.connection)
    assert scene.client.recv(9) == b"rest"
    assert (closed, list(scene.held.ready)) == ([], [scene.connection])
    assert scene.connection.registered == 0
    scene.free = True
    scene.serving.advance(scene.connection)
    assert closed == [1]
    assert scene.connection.waiting is Waiting.FIRST_REQUEST


def test_an_event_from_before_a_suspension_is_ignored(scene):
    """The connection belongs to the application."""
    scene.client.sendall(SHORT % 1)
    scene.serving.on_event(scene.connection)
    assert scene.answered == []


def test_a_lingering_close_discards_input(scene):
    """Until the client closes."""
    scene.wait(Waiting.CLOSE)
    scene.client.sendall(SHORT % 1)
    scene.serving.on_event(scene.connection)
    scene.serving.on_event(scene.connection)
    assert not scene.closed
    assert scene.answered == []
    scene.client.shutdown(socket.SHUT_WR)
    scene.serving.on_event(scene.connection)
    assert scene.closed


@pytest.mark.parametrize("kind", list(Waiting))
@pytest.mark.parametrize("begun", [False, True])
def test_the_end_of_each_timeout(scene, kind, begun):
    """A request that has begun is answered with 408; an idle connection and all others are closed."""
    if begun:
        scene.connection.engine.receive(b"GET /half")
        assert not scene.connection.take_request()
    scene.serving.on_deadline(scene.connection, kind)
    refused = begun and kind in {Waiting.FIRST_REQUEST, Waiting.BODY}
    assert scene.errors == (["408 Request Timeout"] if refused else [])
    if refused:
        assert scene.client.recv(9) == b"error"
        assert scene.connection.waiting is Waiting.CLOSE
    assert scene.closed is not refused


def test_an_idle_connection_is_closed_unless_a_request_has_just_arrived(scene):
    """That is answered."""
    scene.client.sendall(SHORT % 1)
    scene.serving.on_deadline(scene.connection, Waiting.NEXT_REQUEST)
    assert [target for target, _ in scene.answered] == [b"/1"]
    assert not scene.closed
    assert scene.client.recv(99) == ANSWER
    scene.serving.on_deadline(scene.connection, Waiting.NEXT_REQUEST)
    assert scene.closed
    assert scene.client.recv(9) == b""


@pytest.mark.parametrize("progress", [True, False])
def test_a_client_that_reads_slowly_goes_on(scene, progress, monkeypatch):
    """Others are reset, so that the kernel drops what they do not read."""
    resets = []
    scene.wait(Waiting.WRITE)
    kind = type(scene.connection.outbox)
    monkeypatch.setattr(kind, "has_progressed", lambda _: progress)
    monkeypatch.setattr(kind, "reset_on_close", lambda _: resets.append(1))
    scene.serving.on_deadline(scene.connection, Waiting.WRITE)
    assert scene.closed is not progress
    assert resets == ([] if progress else [1])
    if progress:
        assert scene.connection.waiting is Waiting.WRITE
        assert scene.connection.registered == select.EPOLLOUT


def test_the_rest_of_a_head_is_no_request_whatever_it_looks_like(scene):
    """It belongs to the head that has begun."""
    assert not scene.closed
    scene.connection.engine.receive(b"GET /one HTTP/1.1\r\nX: ")
    assert not scene.connection.take_request()
    scene.wait(Waiting.FIRST_REQUEST)
    scene.client.sendall(b"GET /two HTTP/1.1\r\nHost: h\r\n\r\n")
    scene.serving.on_event(scene.connection)
    assert scene.answered == [(b"/one", b"")]
