"""The limits that uvicorn's HTTP protocol lacks: sizes, and a timeout for each step of a connection."""

import asyncio
import contextlib
import ssl
import threading
import time

import pytest

from preforkd.config.settings import (
    HttpSettings,
    TlsSettings,
)
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    POST,
    closed_without_answer,
    listener_settings,
    serving_asgi,
    show_scope,
)
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all, read_answer


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
    """A silent and an idle connection are closed, half a head gets 408, a stalled body is aborted."""
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
        assert closed_without_answer(worker, POST + b"Content-Length: 5\r\n\r\nab")


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
    """The rate is measured from the end of the pause, however long it was."""
    judged = []

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        protocol = receive.__self__.on_response.__self__
        deadline = time.monotonic() + 20
        while not (protocol.flow.read_paused and late(protocol)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        protocol.flow.resume_reading()
        protocol._check_body_rate()
        judged.append(protocol.transport.is_closing())
        await show_scope(scope, receive, send)

    def late(protocol):
        return protocol.loop.time() > protocol._body_came + 1

    with serving_asgi(slow, body_timeout=1) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 500000\r\n\r\n" + b"x" * 500_000)
        assert len(read_answer(sock)[1]) > 500_000
    assert judged == [False]


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
        part = {"type": "http.response.body", "body": b"x" * 9_000_000, "more_body": True}
        for _ in range(1 if scope["path"] == "/whole" else 4):
            await send(part)
        await send({"type": "http.response.body", "body": b""})
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
