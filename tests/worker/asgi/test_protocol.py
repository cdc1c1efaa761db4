"""The limits of a connection: sizes, and a timeout for each step."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time

import pytest

from preforkd.config.settings import (
    HttpSettings,
    TlsSettings,
)
from preforkd.ipc import messages
from preforkd.worker.asgi import server, websocket_support
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    HANDSHAKE,
    POST,
    listener_settings,
    serving_asgi,
    show_scope,
)
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all, read_answer, wait_until


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GET % (b"/" + b"a" * 600, b""), 414),
        (GET % (b"/", b"A: " + b"b" * 800 + b"\r\n"), 431),
        (GET % (b"/", (b"A: " + b"b" * 400 + b"\r\n") * 3), 431),
        (GET % (b"/", b"A: b\r\n" * 30), 431),
        (POST + b"Content-Length: 2000\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, 413),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (b"NONSENSE\r\n\r\n", 400),
    ],
)
@pytest.mark.parametrize("pipelined", [False, True])
def test_a_request_above_a_limit_is_refused(data, status, pipelined, caplog):
    """It is answered with the limit's status, and nothing is logged."""
    limits = {"max_line": 512, "max_field": 700, "max_header": 1024, "max_fields": 20}
    with serving_asgi(max_body=1000, **limits) as worker, worker.connect() as sock:
        if pipelined:
            sock.sendall(GET % (b"/", b""))
            assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")
        sock.sendall(data)
        assert read_all(sock).startswith(b"HTTP/1.1 %d " % status)
    assert not caplog.records


def test_each_wait_for_input_has_a_timeout():
    """A silent and an idle connection are closed; half a head and a stalled body get 408."""
    with serving_asgi(header_timeout=0.2, keep_alive=0.2, body_timeout=0.2) as worker:
        assert worker.ask(b"") == b""
        assert worker.ask(b"\r\n") == b""
        assert worker.ask(b"GET / HT").startswith(b"HTTP/1.1 408 ")
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
            assert read_all(sock) == b""
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
            sock.sendall(b"\r\n")  # this is no request, and no reason to stay
            assert read_all(sock) == b""
        answer = worker.ask(POST + b"Content-Length: 5\r\n\r\nab")
        assert answer.endswith(b"\r\n\r\n408 Request Timeout: the request did not arrive\n")


def test_no_body_timeout_while_the_application_does_not_read():
    """Reading pauses when the application does not receive; the client is not timed out for that."""
    go = threading.Event()

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        while not go.is_set():
            await asyncio.sleep(0.01)
        await show_scope(scope, receive, send)

    with serving_asgi(slow, body_timeout=1) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 500000\r\n\r\n" + b"x" * 500_000)
        threading.Timer(2.5, go.set).start()
        assert len(read_answer(sock)[1]) > 500_000


def test_the_body_timeout_begins_when_reading_resumes():
    """A client that sends nothing for a while after the pause has the whole time for it."""
    go = threading.Event()

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await asyncio.to_thread(go.wait)
        await show_scope(scope, receive, send)

    with serving_asgi(slow, body_timeout=1, min_rate=1) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 300002\r\n\r\n" + b"x" * 300_000)
        time.sleep(1.5)
        go.set()
        time.sleep(0.6)
        sock.sendall(b"xx")
        assert len(read_answer(sock)[1]) > 300_000


@pytest.mark.parametrize("secure", [False, True])
def test_a_client_that_does_not_read_is_disconnected(secure):
    """During an answer and after it, over plain TCP and TLS: the kernel alone would wait for ever."""
    settings = listener_settings(
        tls=secure,
        http=HttpSettings(body_timeout=0.3),
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
    )
    ended = threading.Event()

    async def much(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = {"type": "http.response.body", "body": b"x" * 9_000_000}
        try:
            for _ in range(0 if scope["path"] == "/whole" else 4):
                await send({**body, "more_body": True})
            await send(body)
        finally:
            ended.set()

    with serving_asgi(much, whole=settings) as worker:
        for path in (b"/whole", b"/parts"):
            sock = worker.connect()
            if secure:
                context = ssl.create_default_context(cadata=CERTIFICATE)
                sock = context.wrap_socket(sock, server_hostname="localhost")
            ended.clear()
            sock.sendall(GET % (path, CLOSE))
            assert ended.wait(20)
            deadline = time.monotonic() + 20
            while worker.slot.read(1e18).connections:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            sock.close()


def test_a_client_that_reads_at_the_minimum_rate_is_served():
    """min_rate in each window of body_timeout is enough, however long the answer takes."""

    async def much(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 12_000_000})

    with serving_asgi(much, body_timeout=0.3, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", CLOSE))
        size = 0
        while piece := sock.recv(400_000):
            size += len(piece)
            time.sleep(0.03)
        assert size > 12_000_000


def test_the_minimum_rate_holds_in_every_window():
    """A fast beginning of a body does not make up for single bytes afterwards."""
    told = threading.Event()

    async def reads(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    with serving_asgi(reads, body_timeout=0.3, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 900000\r\n\r\n" + b"x" * 500_000)
        while not told.wait(0.05):
            with contextlib.suppress(OSError):
                sock.sendall(b"x")


def test_no_body_timeout_before_100_continue():
    """The client waits for the application's first receive, which sends 100 Continue."""

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await asyncio.sleep(1)
        await show_scope(scope, receive, send)

    head = POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n" + CLOSE + b"\r\n"
    with serving_asgi(slow, body_timeout=0.2) as worker, worker.connect() as sock:
        sock.sendall(head)
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        assert read_all(sock).endswith(b"/ abc")


def test_probes():
    """Probes are answered without the application; readiness is 503 while a drain is announced."""

    async def never(scope, receive, send):
        raise AssertionError

    with (
        serving_asgi(never, healthy="/-/healthy", ready="/-/ready") as worker,
        worker.connect() as sock,
    ):
        for path in (b"/-/healthy", b"/-/ready", b"/-/ready?x=1"):
            sock.sendall(GET % (path, b""))
            assert read_answer(sock)[1] == b"ok\n"
        head = "HTTP/1.1 200 "
        worker.master.send(messages.DrainNotice())
        while " 200 " in head:
            sock.sendall(GET % (b"/-/ready", b""))
            head, _ = read_answer(sock)
        assert " 503 " in head
        assert worker.slot.read(1e18).requests == 0


@pytest.mark.parametrize("garbage", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03"])
def test_garbage_behind_a_request_is_refused_after_its_answer(garbage):
    """No byte is inserted into the answer, and it is not lost."""
    with serving_asgi() as worker:
        answer = worker.ask(GET % (b"/a", b"") + garbage)
        first, _, second = answer.partition(b"HTTP/1.1 400 Bad Request\r\n")
        assert first.startswith(b"HTTP/1.1 200 ")
        assert first.endswith(b" /a ")
        assert b"400 Bad Request: " in second


def test_a_client_that_shuts_down_its_sending_side_is_answered():
    """Also all pipelined requests; the application receives http.disconnect behind the body."""
    messages = []

    async def reads(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        while not messages or messages[-1] != "http.disconnect":
            messages.append((await receive())["type"])
        await show_scope(scope, lambda: asyncio.sleep(0, {"type": "http.request"}), send)

    with serving_asgi(reads) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/first", b"") + GET % (b"/second", b""))
        sock.shutdown(socket.SHUT_WR)
        answers = read_all(sock)
    assert messages == ["http.request", "http.disconnect"]
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert b" /second " in answers


def test_half_a_request_at_the_end_of_the_input_is_not_answered():
    """Neither half a head nor half a body; the application receives http.disconnect."""
    with serving_asgi() as worker:
        for data in (b"GET / HTTP", POST + b"Content-Length: 5\r\n\r\nab"):
            with worker.connect() as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock) == b""


def test_a_refusal_reaches_a_client_that_still_sends():
    """The connection lingers: a reset would destroy the answer."""
    with serving_asgi(max_body=1000) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 9000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(90):
                sock.sendall(b"x" * 100_000)
        assert read_all(sock).startswith(b"HTTP/1.1 413 ")


def test_a_malformed_body_is_refused_unless_the_answer_has_begun():
    """400 instead of the application's answer; within it the connection is cut off."""
    ended = threading.Event()

    async def reads(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b"more"})
            ended.clear()
        ended.set()

    chunks = b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    with serving_asgi(reads) as worker:
        with worker.connect() as sock:
            sock.sendall(b"POST /" + chunks + b"x\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 400 ")
            assert ended.wait(20)
        with worker.connect() as sock:
            sock.sendall(b"POST /begun" + chunks)
            text = b""
            while not text.endswith(b"part\r\n"):
                text += sock.recv(1000)
            sock.sendall(b"x\r\n")
            with contextlib.suppress(ConnectionError):
                assert read_all(sock) == b""


def test_a_version_of_websockets_that_is_not_supported():
    """426 names the one that is."""
    data = HANDSHAKE.replace(b"Version: 13", b"Version: 7") % b""
    with serving_asgi() as worker:
        answer = worker.ask(data)
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" in answer


def test_input_behind_a_request_that_runs_is_bounded():
    """A client that pipelines without end is not received from until the answer is complete."""
    go = threading.Event()

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await asyncio.to_thread(go.wait)
        await show_scope(scope, receive, send)

    with serving_asgi(slow) as worker, worker.connect() as sock:
        sock.setblocking(False)
        sent, data = 0, GET % (b"/", b"") * 1000
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            try:
                sent += sock.send(data)
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 30_000_000
        go.set()
        sock.setblocking(True)
        sock.settimeout(20)
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")


def test_an_overdue_request_is_answered():
    """504 for the oldest, before the master ends the process."""

    async def hangs(scope, receive, send):
        if scope["type"] == "http":
            await asyncio.Event().wait()

    with serving_asgi(hangs) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        while (since := worker.slot.busy_since_ns()) == 0:
            time.sleep(0.005)
        worker.master.send(messages.RequestTimeout(since))
        assert b"504 Gateway Timeout: the application took too long" in read_all(sock)
        worker.retire(within=0.4)


@pytest.mark.parametrize("body", [b"", b"ab"])
def test_no_timeout_of_the_input_runs_while_the_application_does(body):
    """It is the application's time, on a new connection and on a kept one, with a body and without."""
    begun = threading.Semaphore(0)

    async def slow(scope, receive, send):
        if scope["type"] == "http":
            begun.release()
            await asyncio.sleep(0.6)
            await show_scope(scope, receive, send)

    times = {"header_timeout": 0.2, "body_timeout": 0.2, "keep_alive": 0.2}
    with serving_asgi(slow, **times) as worker, worker.connect() as sock:
        for _ in range(2):
            sock.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body[:1])
            assert begun.acquire(timeout=20)
            sock.sendall(body[1:])
            assert read_answer(sock)[1].endswith(b" / " + body)


def test_each_request_renews_the_time_for_the_next():
    """It is counted from the answer before it."""
    with serving_asgi(keep_alive=1.5) as worker, worker.connect() as sock:
        for _ in range(4):
            sock.sendall(GET % (b"/", b""))
            assert read_answer(sock)[1].endswith(b" / ")
            time.sleep(0.5)


def answering_after(size):
    """Return an application that answers when it has received so many bytes."""

    async def application(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        received = 0
        while received < size and scope["method"] == "POST":
            received += len((await receive())["body"])
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"fine"})

    return application


def test_the_rest_of_a_body_is_counted_from_its_answer():
    """What the application has received of it does not end the connection."""
    with serving_asgi(answering_after(200_000)) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 260000\r\n\r\n" + b"x" * 200_000)
        assert read_answer(sock)[1] == b"fine"
        sock.sendall(b"x" * 60_000 + GET % (b"/next", b""))
        assert read_answer(sock)[1] == b"fine"


def test_a_body_that_is_malformed_behind_its_answer_ends_the_connection():
    """It is not known where the next request would begin."""
    with serving_asgi(answering_after(1)) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert read_answer(sock)[1] == b"fine"
        sock.sendall(b"nonsense\r\n" + GET % (b"/next", b""))
        with contextlib.suppress(ConnectionResetError):
            assert read_all(sock) == b""


def test_a_lingering_close_ends_with_the_clients_input(monkeypatch):
    """Not with its timeout, which is an hour here."""
    monkeypatch.setattr(server, "CLOSE_TIMEOUT", 3600.0)
    with serving_asgi(max_body=10) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 90\r\n\r\nx")
        assert read_all(sock).startswith(b"HTTP/1.1 413 ")
        sock.sendall(b"more")
        assert worker.slot.read(1e18).connections == 1
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: not worker.slot.read(1e18).connections)


def test_a_lingering_close_ends_with_its_timeout(monkeypatch):
    """A client that neither sends nor closes does not keep the connection."""
    monkeypatch.setattr(server, "CLOSE_TIMEOUT", 0.1)
    with serving_asgi(max_body=10) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 90\r\n\r\nx")
        assert read_all(sock).startswith(b"HTTP/1.1 413 ")
        wait_until(lambda: not worker.slot.read(1e18).connections)


def test_a_websocket_is_refused_where_the_library_is_missing(monkeypatch):
    """501; other requests are served."""
    monkeypatch.setattr(websocket_support, "load", lambda: None)
    with serving_asgi() as worker:
        assert worker.ask(HANDSHAKE % b"").startswith(b"HTTP/1.1 501 Not Implemented\r\n")
        assert b" 200 " in worker.ask(GET % (b"/", CLOSE))


def test_a_request_that_arrives_while_another_runs_waits_for_its_answer():
    """Answers are in the order of their requests, however they arrive."""
    begun, go, order = threading.Event(), threading.Event(), []

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        order.append(scope["path"])
        begun.set()
        if scope["path"] == "/slow":
            await asyncio.to_thread(go.wait)
        await show_scope(scope, receive, send)

    with serving_asgi(slow) as worker, worker.connect() as sock, worker.connect() as other:
        sock.sendall(GET % (b"/slow", b""))
        assert begun.wait(20)
        sock.sendall(GET % (b"/next", CLOSE))
        other.sendall(GET % (b"/other", b""))
        read_answer(other)  # by now the next one has arrived as well
        assert order == ["/slow", "/other"]
        go.set()
        answers = read_all(sock)
    assert 0 < answers.index(b" /slow ") < answers.index(b" /next ")
