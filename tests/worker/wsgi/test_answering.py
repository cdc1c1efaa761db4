"""What an application may do to the WSGI loop: fail, exit, answer without end; Flask, Django, and hooks."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from preforkd.apps.hooks import Hooks
from preforkd.config.settings import (
    AccessLogSettings,
    ProxySettings,
    Settings,
    WorkersSettings,
)
from preforkd.ipc import messages
from tests.worker.handoffs import workers_sharing_a_queue
from tests.worker.serving import read_all, read_answer, serving, wait_until
from tests.worker.wsgi.requests import CLOSE, GET, echo


def test_a_failure_is_answered_with_500_or_cuts_the_answer_off(caplog):
    """500 if nothing was sent yet, else a visible cut; the worker continues."""

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
def test_any_exception_ends_its_request_only(error, threads, caplog):
    """BaseExceptions as well: the answer is 500, and other connections stay open."""

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


class Endless:
    """An endless body that counts the parts taken from it."""

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
def test_an_endless_body_without_a_receiver_ends_the_request(method, status, length, block, late):
    """HEAD, 204, 304, and bytes beyond the Content-Length: the worker stops taking parts."""
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
        wait_until(lambda: body.closed == 1)
        assert body.given <= 4


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("length", [(), (("Content-Length", "8000000"),)])
def test_an_exception_in_close_leaves_the_answer_complete(length, threads, caplog):
    """The answer is delivered however slowly it is read; the exception is logged."""

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
def test_close_of_a_sent_file_counts_as_busy(threads, leaves, tmp_path, caplog):
    """After sending, or when the client left; other connections are served, and a failure is logged."""
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


def test_system_exit_retires_the_worker(caplog):
    """SystemExit is answered with 500, and the worker retires without an order."""

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
    # Django reads the routes of this module when it is configured.
    if name == "urlpatterns":
        from django.urls import path

        return [path("upper", _upper), path("stream", _stream)]
    raise AttributeError(name)


@pytest.mark.parametrize("threads", [1, 3])
def test_hooks_around_requests(threads, caplog):
    """request_begun before the application, request_ended with the status sent; failures are logged."""
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


@pytest.mark.parametrize(
    ("probe", "retiring", "notified", "status"),
    [
        ("alive", False, False, b" 200 "),
        ("alive", True, False, b" 200 "),
        ("alive", False, True, b" 200 "),
        ("ready", False, False, b" 200 "),
        ("ready", True, False, b" 503 "),
        ("ready", False, True, b" 503 "),
    ],
)
def test_a_new_worker_is_ready_and_one_that_is_to_leave_is_not(probe, retiring, notified, status):
    """A load balancer sends no more to one that retires or was notified; alive is each that answers."""
    with serving(None) as worker:
        worker.retire()
        assert worker.ended()
        sent = []
        answering = worker.loop._answering
        answering._acceptor = SimpleNamespace(retiring=retiring, drain_announced=notified)
        connection = SimpleNamespace(
            outbox=SimpleNamespace(send_nowait=sent.append),
            engine=SimpleNamespace(answer_ended=lambda keep: None),
            served=0,
        )
        cached = SimpleNamespace(probe=probe, keep=True, head_only=False)
        answering.answer_probe(connection, cached)
        assert status in sent[0].partition(b"\r\n")[0]


def test_early_hints_reach_the_client_before_the_answer():
    """By ``wsgi.early_hints``, while the application is still at work."""
    go = threading.Event()

    def application(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        assert go.wait(20)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serving(application) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", CLOSE))
        hints = b""
        while not hints.endswith(b"\r\n\r\n"):
            hints += sock.recv(4096)
        assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
        go.set()
        assert read_answer(sock)[1] == b"ok"


class Late:
    """An application that waits for the test; ``/begun`` sends a part of its answer before."""

    def __init__(self):
        self.go, self.waits = threading.Event(), threading.Event()

    def __call__(self, environ, start_response):
        write = start_response("200 OK", [("Content-Length", "9")])
        if environ["PATH_INFO"] == "/begun":
            write(b"part ")
        if environ["PATH_INFO"] != "/soon":
            self.waits.set()
            assert self.go.wait(20)
        return [b"late"]


@contextlib.contextmanager
def serving_late(how, log):
    """Yield a worker whose loop turns while the application runs, by threads or by a takeover."""
    application = Late()
    access = AccessLogSettings(target=str(log), format="json")
    threads = WorkersSettings(threads=3 if how == "threads" else 1)
    whole = Settings(access_log=access, workers=threads)
    with workers_sharing_a_queue(application, size=1, whole=whole) as (worker,):
        yield worker, application


@pytest.mark.parametrize("how", ["threads", "takeover"])
@pytest.mark.parametrize("begun", [False, True])
def test_an_overdue_request_is_answered_once(how, begun, tmp_path):
    """With 504, behind which nothing of the application's follows; no byte is inserted into an answer."""
    log = tmp_path / "log"
    with serving_late(how, log) as (worker, application), worker.connect() as sock:
        sock.sendall(GET % (b"/begun" if begun else b"/late", b""))
        assert application.waits.wait(20)
        if begun:
            while not sock.recv(1000).endswith(b"part "):
                pass
        worker.master.send(messages.RequestTimeout(worker.slot.busy_since_ns()))
        wait_until(lambda: log.exists() and log.read_text())
        if not begun:
            answer = read_all(sock)
            assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
            assert answer.endswith(b"\r\n\r\n504 Gateway Timeout: the application took too long\n")
        application.go.set()
        if begun:
            assert sock.recv(100) == b"late"
    entry = json.loads(log.read_text().splitlines()[0])
    assert (entry["status"], entry["target"]) == ((200, "/begun") if begun else (504, "/late"))
    assert entry["bytes"] == (5 if begun else 51)


def test_the_oldest_request_of_the_threads_is_the_overdue_one(tmp_path):
    """Others go on."""
    with (
        serving_late("threads", tmp_path / "log") as (worker, application),
        worker.connect() as old,
        worker.connect() as new,
    ):
        old.sendall(GET % (b"/old", CLOSE))
        assert application.waits.wait(20)
        application.waits.clear()
        new.sendall(GET % (b"/new", CLOSE))
        assert application.waits.wait(20)
        worker.master.send(messages.RequestTimeout(worker.slot.busy_since_ns()))
        assert b" 504 " in read_all(old)
        application.go.set()
        assert b" 200 " in read_all(new)


def environ_of(worker, request=GET % (b"/", CLOSE), keys=()):
    """Return these of the environ's values, as the application of `shows` sees them."""
    with worker.connect() as sock:
        sock.sendall(request)
        body = read_all(sock).partition(b"\r\n\r\n")[2]
        return [json.loads(body)[key] for key in keys], sock.getsockname()


def shows(environ, start_response):
    start_response("200 OK", [])
    values = {key: value for key, value in environ.items() if isinstance(value, str)}
    return [json.dumps(values).encode()]


@pytest.mark.parametrize(
    ("host", "client", "server"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("::", "::1", "[::1]"),
    ],
)
def test_the_environ_names_both_ends_of_the_connection(host, client, server):
    """On a listener for every address, the one that the client used; what a proxy reports comes first."""
    proxy = ProxySettings(trusted=(client,), headers="x-forwarded", parameters=("for", "host"))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    with serving(shows, whole=Settings(proxy=proxy), listener=listener) as worker:
        worker.address = (client, worker.address[1])
        keys = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT")
        values, (address, port, *_) = environ_of(worker, keys=keys)
        assert values == [server, str(worker.address[1]), address, str(port)]
        reported = b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: shop\r\n" + CLOSE
        values, _ = environ_of(worker, GET % (b"/", reported), keys=keys[:3:2])
        assert values == ["shop", "1.2.3.4"]


@pytest.mark.parametrize(
    ("limits", "kept"), [({"keep_alive": 0}, 0), ({"max_requests": 2}, 1), ({}, 3)]
)
@pytest.mark.parametrize("path", [b"/", b"/ready"])
def test_the_last_request_of_a_connection(limits, kept, path):
    """It is answered with Connection: close, whether the application answers it or not."""
    with serving(shows, ready="/ready", **limits) as worker, worker.connect() as sock:
        for _ in range(kept):
            sock.sendall(GET % (path, b""))
            assert "Connection: close" not in read_answer(sock)[0]
        sock.sendall(GET % (path, b"" if limits else CLOSE))
        assert b"Connection: close" in read_all(sock)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failure_within_an_answer_is_logged_once(threads, caplog):
    """No byte of another answer is inserted; an answer to HEAD that fails has no body."""

    def fails(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "9")])
        if environ["PATH_INFO"] == "/begun":
            write(b"part ")
        raise KeyError("lost")

    with serving(fails, whole=Settings(workers=WorkersSettings(threads=threads))) as worker:
        assert worker.ask(GET % (b"/begun", b"")).endswith(b"\r\n\r\npart ")
        answer = worker.ask(b"HEAD" + (GET % (b"/", b""))[3:])
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert answer.endswith(b"\r\n\r\n")
    assert [record.getMessage() for record in caplog.records] == [
        "the application failed on GET /begun",
        "the application failed on HEAD /",
    ]


def test_each_answer_of_a_connection_is_counted_and_logged_by_itself(tmp_path):
    """Its bytes, and the time of its request."""
    log = tmp_path / "log"
    access = AccessLogSettings(target=str(log), format="json")
    with serving(echo, access=access) as worker, worker.connect() as sock:
        for path in (b"/", b"/longer"):
            sock.sendall(GET % (path, b""))
            size = len(sock.recv(4096))
            (connection,) = worker.loop._connections
            wait_until(lambda size=size, outbox=connection.outbox: outbox.sent == size)
    first, second = map(json.loads, log.read_text().splitlines())
    assert (first["status"], first["bytes"]) == (200, len("GET / "))
    assert (second["status"], second["bytes"]) == (200, len("GET /longer "))
    assert 0 <= first["seconds"] < 20


def test_the_state_after_an_exception_of_a_signal_handler():
    """The main thread has the loop, and no request; while the takeover thread has it, nothing changes."""
    with serving(None) as worker:
        worker.retire()
        assert worker.ended()
        answering = worker.loop._answering
        answering.takeover.loop_lock = threading.RLock()  # the ended thread has the former one
        worker.acceptor.slot_writer.set_busy()
        answering.takeover.active = True
        answering.recover()
        assert worker.slot.busy_since_ns()
        assert not answering.takeover.loop_lock._is_owned()
        answering.takeover.active = False
        answering.recover()
        assert not worker.slot.busy_since_ns()
        assert answering.takeover.loop_lock._is_owned()
        assert answering.current is None
