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
from preforkd.worker.wsgi import takeover
from tests.worker.handoffs import workers_sharing_a_queue
from tests.worker.serving import read_all, read_answer, serving, wait_until
from tests.worker.wsgi.requests import CLOSE, GET, echo, read_body, unread_bytes


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
