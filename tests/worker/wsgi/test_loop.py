"""The WSGI worker, served by its own loop on a real socket."""

import asyncio
import contextlib
import fcntl
import random
import socket
import struct
import termios
import threading
import time
from wsgiref.validate import validator

import pytest

from preforkd.apps.hooks import Hooks
from preforkd.config.settings import Settings, WorkersSettings
from tests.worker.serving import read_all, read_answer, serving

GET = b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n"
CLOSE = b"Connection: close\r\n"


def echo(environ, start_response):
    """Answer with method, path and body."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    text = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + body
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text]


@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
def test_the_protocol_is_kept_both_ways(caplog):
    """wsgiref's validator finds nothing with GET, POST, HEAD, a chunked body and a query."""
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
    """Kept, pipelined, and closed when the client asks; each counts once in the slot."""
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
def test_bodies_arrive_whole_however_they_come(method, size):
    """In one piece, in pieces, one behind the other; the connection is as new afterwards."""
    body = random.Random(size).randbytes(size)
    head = method + b" /%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
    cuts = {0, 1, 4095, 4096, 4097, size // 2, size}
    with serving(echo) as worker, worker.connect() as sock, sock.makefile("rb") as answers:
        for number, cut in enumerate(sorted(cuts)):
            message = head % (number, size) + body
            here = len(message) - size + cut
            sock.sendall(message[:here])
            if number % 2:
                # What was sent is looked at before the rest comes.
                until(lambda: not any(map(unread, list(worker.loop._connections))))
            sock.sendall(message[here:] + GET % (b"/next", b""))
            told = method + b" /%d " % number
            assert next_body(answers) == told + body
            assert next_body(answers) == b"GET /next "
        until(lambda: worker.slot.read(1e18).requests == 2 * len(cuts))


def next_body(answers):
    """Return the body of the next answer."""
    head = "".join(iter(lambda: answers.readline().decode(), "\r\n")).lower()
    return answers.read(int(head.partition("content-length: ")[2].split()[0]))


def unread(descriptor):
    """Return how many bytes of a socket's input nobody has read."""
    return struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]


def until(condition):
    """Wait until this holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_client_that_has_said_all_gets_its_answer():
    """A half-closed connection (nc) is answered."""
    with serving(echo) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        sock.shutdown(socket.SHUT_WR)
        assert b"GET / " in read_all(sock)


def test_a_client_that_waits_for_100_gets_it():
    """Then sends its body, and is answered."""
    with serving(echo) as worker, worker.connect() as sock:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        sock.sendall(head)
        assert sock.recv(999) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ok")
        assert read_answer(sock)[1] == b"POST / ok"


def test_slow_senders_occupy_nobody():
    """With fifty half requests open, a whole one is answered at once."""
    with serving(echo) as worker:
        slow = [worker.connect() for _ in range(50)]
        for sock in slow:
            sock.sendall(b"GET / HTTP/1.1\r\nHo")
        assert b"GET /fast" in worker.ask(GET % (b"/fast", CLOSE))
        slow[7].sendall(b"st: h\r\n\r\n")
        assert read_answer(slow[7])[1] == b"GET / "
        for sock in slow:
            sock.close()


def test_a_slow_reader_occupies_nobody():
    """An answer of 20 MB that nobody reads yet does not keep the next client waiting."""

    def large(environ, start_response):
        start_response("200 OK", [])
        return [b"x" * (20_000_000 if environ["PATH_INFO"] == "/large" else 1)]

    with serving(large) as worker, worker.connect() as lazy:
        lazy.sendall(GET % (b"/large", b""))
        assert worker.ask(GET % (b"/small", CLOSE)).endswith(b"\r\n\r\nx")
        assert len(read_answer(lazy)[1]) == 20_000_000


def test_a_stream_waits_for_a_slow_reader_without_hoarding():
    """50 MB are produced only as fast as they are read, where nothing may wait in a file."""
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


def test_nonsense_is_answered_and_ends_the_connection():
    """400, and the answer arrives although the client has sent more."""
    with serving(echo) as worker:
        answer = worker.ask(b"NONSENSE\r\n\r\n" + b"x" * 200_000)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1") == 1
        assert b"GET / " in worker.ask(GET % (b"/", CLOSE))


def test_an_application_that_fails_is_answered_for(caplog):
    """500 before anything was sent; a visible cut after; the worker goes on."""

    def fails(environ, start_response):
        if environ["PATH_INFO"] == "/late":
            start_response("200 OK", [])
            yield b"part"
        raise KeyError("boom")

    with serving(fails) as worker:
        assert worker.ask(GET % (b"/", b"")).startswith(b"HTTP/1.1 500 ")
        late = worker.ask(GET % (b"/late", b""))
        assert late.endswith(b"4\r\npart\r\n")  # and no last chunk
    assert caplog.text.count("the application failed on GET") == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("threads", [1, 2])
def test_whatever_an_application_raises_ends_its_request_only(error, threads, caplog):
    """Also what is no Exception: 500, and the connections of others stay open."""

    def fails(environ, start_response):
        if environ["PATH_INFO"] == "/fails":
            raise error
        return echo(environ, start_response)

    whole = Settings(workers=WorkersSettings(threads=threads))
    with serving(fails, whole=whole) as worker, worker.connect() as other:
        other.sendall(GET % (b"/a", b""))
        read_answer(other)
        for _ in range(3):
            assert worker.ask(GET % (b"/fails", b"")).startswith(b"HTTP/1.1 500 ")
        other.sendall(GET % (b"/b", b""))
        assert read_answer(other)[1] == b"GET /b "
    assert caplog.text.count("the application failed on GET /fails") == 3


@pytest.mark.parametrize("body", [b"", b"x" * 40])
def test_each_request_has_its_own_time(body):
    """A client that always has half of the next request on its way is not late."""
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    half = len(request) - 20
    with serving(echo, header_timeout=0.3, body_timeout=0.3, min_rate=1) as worker:
        end = time.monotonic() + 1.0
        with worker.connect() as sock:
            sock.sendall(request[:half])
            while time.monotonic() < end:
                sock.sendall(request[half:] + request[:half])
                assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")


def test_a_client_that_resets_hurts_nobody(caplog):
    """Before, during and after its request."""
    with serving(echo) as worker:
        for data in (b"", b"GET / HT", GET % (b"/", b"")):
            sock = worker.connect()
            sock.sendall(data)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        assert b"GET / " in worker.ask(GET % (b"/", CLOSE))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_those_who_send_nothing_are_parted_from():
    """A late header is answered with 408, silence and an idle connection are closed."""
    with serving(echo, header_timeout=0.2, keep_alive=0.2) as worker:
        assert worker.ask(b"GET / HT").startswith(b"HTTP/1.1 408 ")
        assert worker.ask(b"") == b""
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            assert b"keep" not in read_all(sock)


def test_empty_lines_do_not_keep_a_connection():
    """They are no request: an idle client's time does not begin anew with each."""
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


def test_a_body_that_stops_is_given_up():
    """408 after http.body_timeout without another part."""
    with serving(echo, body_timeout=0.2) as worker:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"
        assert worker.ask(head).startswith(b"HTTP/1.1 408 ")


def test_no_more_connections_than_allowed_are_accepted():
    """The rest waits in the kernel's queue until one goes."""
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


def test_a_retiring_worker_answers_what_has_begun():
    """A half request is waited for and answered with Connection: close; nothing is accepted."""
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
    """One that has sent nothing when the worker retires still gets its first answer."""
    with serving(echo) as worker, worker.connect() as quiet:
        assert b"GET / " in worker.ask(GET % (b"/", CLOSE))
        worker.retire()
        quiet.sendall(GET % (b"/first", b""))
        assert b"GET /first" in read_all(quiet)
        assert worker.ended()


def test_idle_connections_linger_and_then_end():
    """During the linger a kept connection's request is answered; without one it is closed."""
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


def test_a_running_request_is_finished():
    """Told to leave while the application runs: the answer is whole."""
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


def test_a_worker_whose_master_has_gone_leaves():
    """End-of-file on the channel is as good as being told."""
    with serving(echo) as worker:
        worker.master.close()
        assert worker.ended()


class Endless:
    """A body without end; counts what was asked of it."""

    def __init__(self, block):
        self.block, self.given, self.closed = block, 0, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.given += 1
        return self.block

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("block", [b"x", b""])
@pytest.mark.parametrize(
    ("method", "status", "length"),
    [(b"HEAD", "200 OK", ()), (b"GET", "204 No Content", ()), (b"GET", "304 Not Modified", ()),
     (b"GET", "200 OK", (("Content-Length", "3"),)), (b"GET", "200 OK", (("Content-Length", "0"),))],
)  # fmt: skip
def test_a_body_that_nobody_gets_is_not_waited_for(method, status, length, block, late):
    """HEAD, 204, 304, and what is behind a Content-Length: without end, it holds the worker no longer."""
    if length and not block:
        pytest.skip("it may yet give what it has promised")
    body = Endless(block)

    def application(environ, start_response):
        if not late:
            start_response(status, list(length))
            return body

        def give():
            start_response(status, list(length))
            try:
                for part in body:  # noqa: UP028 - "yield from" would close it itself
                    yield part
            finally:
                body.close()

        return give()

    with serving(application) as worker:
        answer = worker.ask(method + b" / HTTP/1.1\r\nHost: h\r\n" + CLOSE + b"\r\n")
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert status.encode() in head
        assert rest == (b"xxx" if length == (("Content-Length", "3"),) else b"")
        until(lambda: body.closed == 1)
        assert body.given <= 4


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("length", [(), (("Content-Length", "8000000"),)])
def test_a_close_that_fails_cuts_nothing_off(length, threads, caplog):
    """The answer is complete, and delivered however slowly it is read; the log says what failed."""

    class Body:
        def __iter__(self):
            for _ in range(80):
                yield b"x" * 100_000

        def close(self):
            raise ValueError("close")

    def application(environ, start_response):
        start_response("200 OK", list(length))
        return Body()

    whole = Settings(workers=WorkersSettings(threads=threads))
    with serving(application, whole=whole) as worker, worker.connect() as sock:
        for _ in range(2):  # on a connection that is kept
            sock.sendall(GET % (b"/", b""))
            time.sleep(0.1)
            data = b""
            while data.count(b"x") < 8_000_000:
                data += sock.recv(1 << 20)
            if not length:
                while not data.endswith(b"0\r\n\r\n"):
                    data += sock.recv(100)
    failed = [record for record in caplog.records if record.exc_info]
    assert [record.exc_info[0] for record in failed] == [ValueError] * 2
    assert "after its answer" in failed[0].getMessage()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("leaves", [False, True])
def test_closing_what_was_sent_is_the_applications_work(threads, leaves, tmp_path, caplog):
    """When the client has it, or has left: as busy, and others are served; what fails harms nobody."""
    entered, go = threading.Event(), threading.Event()
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)

    def application(environ, start_response):
        if environ["PATH_INFO"] != "/file":
            start_response("200 OK", [("Content-Length", "1")])
            return [b"y"]

        file = path.open("rb")

        def close():
            file.close()
            entered.set()
            assert go.wait(20)
            raise ValueError("close")

        start_response("200 OK", [("Content-Length", "20000000")])
        wrapper = environ["wsgi.file_wrapper"](file)
        wrapper.close = close
        return wrapper

    whole = Settings(workers=WorkersSettings(threads=threads))
    with serving(application, whole=whole) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/file", b""))
        if leaves:
            sock.recv(1000)
            sock.close()
        else:
            body = read_answer(sock)[1]
            assert len(body) == 20_000_000
            sock.sendall(GET % (b"/", b""))
        assert entered.wait(20)
        assert worker.slot.busy_since_ns()
        if threads > 1:
            assert worker.ask(GET % (b"/", CLOSE)).endswith(b"y")
        go.set()
        if not leaves:
            assert read_answer(sock)[1] == b"y"
        assert worker.ask(GET % (b"/", CLOSE)).endswith(b"y")
    assert "ValueError: close" in caplog.text


def test_exit_asks_for_the_workers_end(caplog):
    """SystemExit is answered for with 500, and the worker leaves of its own accord."""

    def leaves(environ, start_response):
        raise SystemExit

    with serving(leaves) as worker:
        assert worker.ask(GET % (b"/", b"")).startswith(b"HTTP/1.1 500 ")
        assert worker.ended()
        assert worker.acceptor.self_retired


def test_flask():
    """Forms, JSON, streams and errors of a Flask application."""
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)

    @app.post("/form")
    def form():
        return {"got": flask.request.form["a"]}

    @app.get("/stream")
    def stream():
        return flask.Response(str(number) for number in range(3))

    with serving(app) as worker:
        head = b"POST /form HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n" + CLOSE
        kind = b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        assert b'{"got":"b"}' in worker.ask(head + kind + b"a=b")
        assert b"1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n" in worker.ask(GET % (b"/stream", CLOSE))
        assert worker.ask(GET % (b"/nowhere", CLOSE)).startswith(b"HTTP/1.1 404 ")


def test_django():
    """A Django view reads a POST body and streams an answer."""
    pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", DEBUG=False)
    from django.core.wsgi import get_wsgi_application

    with serving(get_wsgi_application()) as worker:
        head = b"POST /upper HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n" + CLOSE + b"\r\n"
        assert b"\r\nABC\r\n" in worker.ask(head + b"abc")
        assert b"1\r\n0\r\n1\r\n1\r\n0\r\n\r\n" in worker.ask(GET % (b"/stream", CLOSE))


def _upper(request):
    from django.http import HttpResponse

    return HttpResponse(request.body.upper())


def _stream(request):
    from django.http import StreamingHttpResponse

    return StreamingHttpResponse(str(number) for number in range(2))


def __getattr__(name):
    # Django asks this module for its routes once it is configured.
    if name == "urlpatterns":
        from django.urls import path

        return [path("upper", _upper), path("stream", _stream)]
    raise AttributeError(name)


@pytest.mark.parametrize("threads", [1, 3])
def test_hooks_around_requests(threads, caplog):
    """Begun before the application, ended with the status the client was told; failures are contained."""
    seen = []

    def begun(environ):
        seen.append(("begun", environ["PATH_INFO"]))
        environ["told"] = 1
        if environ["PATH_INFO"] == "/unlucky":
            raise OSError("no tracer")

    def ended(environ, status):
        seen.append(("ended", environ["PATH_INFO"], environ["told"], status))

    def application(environ, start_response):
        seen.append(("answered", environ["PATH_INFO"]))
        if environ["PATH_INFO"] == "/broken":
            raise ValueError("broken")
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]

    hooks = Hooks({"request_begun": begun, "request_ended": ended})
    whole = Settings(workers=WorkersSettings(threads=threads))
    with serving(application, whole=whole, hooks=hooks) as worker:
        for path, status in (("/lost", "404"), ("/broken", "500"), ("/unlucky", "404")):
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            assert worker.ask(request.encode()).startswith(f"HTTP/1.1 {status}".encode())
            expected = [("begun", path), ("answered", path), ("ended", path, 1, int(status))]
            assert seen == expected
            seen.clear()
    assert "the hook request_begun failed" in caplog.text
    assert "no tracer" in caplog.text
