"""Requests and answers of an ASGI application, over a socket."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from preforkd.config.settings import (
    ProxySettings,
    Settings,
)
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    POST,
    serving_asgi,
)
from tests.worker.serving import read_all, read_answer, wait_until


def test_requests_of_one_connection_are_answered_and_counted():
    """On a kept connection, pipelined, chunked: each counts once in the slot, which is idle afterwards."""
    with serving_asgi() as worker, worker.connect() as sock:
        for _ in range(3):
            sock.sendall(GET % (b"/a", b""))
            assert b"/a" in read_answer(sock)[1]
        chunks = b"3\r\nabc\r\n0\r\n\r\n"
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + GET % (b"/z", CLOSE))
        rest = read_all(sock)
        assert rest.count(b"HTTP/1.1 200 ") == 2
        assert b"/ abc" in rest
        wait_until(lambda: worker.slot.read(1e18).busy_since is None)
        reading = worker.slot.read(1e18)
        assert (reading.requests, reading.accepted) == (5, 1)


async def answer_by_path(scope, receive, send):
    """Answer by the path: in parts, without a length, twice, incomplete, or with an exception."""
    path, headers = scope["path"], []
    if path in {"/longer", "/shorter"}:
        headers = [(b"content-length", b"3")]
    await send(
        {
            "type": "http.response.start",
            "status": 204 if path == "/204" else 200,
            "headers": headers,
        }
    )
    if path == "/twice":
        await send({"type": "http.response.start", "status": 200})
    if path == "/fails":
        raise RuntimeError("it fails")
    if path == "/parts":
        for part in (b"one", b"", b"two" * 30_000):
            await send({"type": "http.response.body", "body": part, "more_body": True})
    if path != "/ends":
        await send(
            {
                "type": "http.response.body",
                "body": b"" if path == "/204" else b"four"[: 2 if path == "/shorter" else 4],
            }
        )


def test_answers_in_parts_and_without_a_length():
    """The answer is chunked; HEAD has no body and 204 no framing; the connection stays open."""
    with serving_asgi(answer_by_path) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/parts", b""))
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += sock.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        two = b"two" * 30_000
        assert body == b"3\r\none\r\n15f90\r\n" + two + b"\r\n4\r\nfour\r\n0\r\n\r\n"
        for request in (b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", GET % (b"/204", b"")):
            sock.sendall(request)
            answer = sock.recv(65536)
            assert answer.endswith(b"\r\n\r\n")
            assert b"chunked" not in answer
        assert worker.slot.read(1e18).requests >= 2


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_an_endless_body_without_a_receiver_ends_the_request(method, status):
    """HEAD, 204 and 304: the connection serves its next request, and the application gets http.disconnect."""
    told = threading.Event()

    async def endless_events(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        await send({"type": "http.response.start", "status": status, "headers": []})

        async def give():
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})

        giving = asyncio.ensure_future(give())
        while (await receive())["type"] != "http.disconnect":
            pass
        giving.cancel()
        told.set()

    with serving_asgi(endless_events) as worker, worker.connect() as sock:
        for _ in range(2):
            told.clear()
            sock.sendall(method + b" / HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = sock.recv(65536)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert answer.endswith(b"\r\n\r\n")
            assert told.wait(20)


@pytest.mark.parametrize("path", [b"/fails", b"/twice", b"/ends", b"/longer", b"/shorter"])
def test_a_failure_before_the_body_is_answered_with_500(path):
    """The head is sent with the body, so that the client gets a complete 500."""
    with serving_asgi(answer_by_path) as worker:
        answer = worker.ask(GET % (path, b""))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert answer.endswith(b"\r\n\r\n500 Internal Server Error: the application failed\n")


def test_max_requests_closes_the_connection():
    """The last request gets Connection: close; with keep_alive 0 the first is the last."""
    with serving_asgi(max_requests=2) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        assert "Connection: close" not in read_answer(sock)[0]
        sock.sendall(GET % (b"/", b""))
        assert b"Connection: close" in read_all(sock)
    with serving_asgi(keep_alive=0) as worker:
        assert b"Connection: close" in worker.ask(GET % (b"/", b""))


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_trailers_are_dropped(step):
    """Trailers are no headers of this request or the next, and cannot name the client."""
    proxy = ProxySettings(trusted=("127.0.0.1",), headers="x-forwarded")
    trailers = b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-User: admin\r\n"
    trailers += b"Expect: 100-continue\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n" + trailers + b"\r\n"
    data = POST + b"X-Forwarded-For: 9.9.9.9\r\n" + chunks + GET % (b"/z", CLOSE)
    with serving_asgi(whole=Settings(proxy=proxy)) as worker, worker.connect() as sock:
        for at in range(0, len(data), step):
            sock.sendall(data[at : at + step])
        first, second = read_all(sock).split(b"HTTP/1.1 200 ")[1:]
    assert b"http ('9.9.9.9', 0) / hi" in first
    assert b"x-names: host x-forwarded-for transfer-encoding\r\n" in first
    assert b"http ('127.0.0.1'" in second
    assert b"x-names: host connection\r\n" in second


def test_too_many_trailers_are_refused():
    """Trailers count against max_fields although they are dropped."""
    chunks = b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    with serving_asgi(max_fields=20) as worker:
        assert (
            worker.ask(POST + chunks + b"a: b\r\n" * 20 + b"\r\n" + GET % (b"/", CLOSE)).count(
                b"HTTP/1.1 200 "
            )
            == 2
        )
        answer = worker.ask(POST + chunks + b"a: b\r\n" * 21 + b"\r\n")
        assert b" 200 " not in answer


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("part", [b"", b"body"])
def test_an_answer_without_a_body_may_have_a_content_length(status, part):
    """The Content-Length of a 304 is that of the omitted body; no byte follows the head."""

    async def fresh(scope, receive, send):
        headers = [(b"content-length", b"4"), (b"etag", b"x")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": part})

    with serving_asgi(fresh) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b"") + GET % (b"/", CLOSE))
        answer = read_all(sock)
    first, second, rest = answer.split(b"\r\n\r\n")
    assert rest == b""
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert (b"content-length: 4" in head) == (status == 304)
        assert b"Transfer-Encoding" not in head


async def answer(send, body=b"", *, headers=(), **how):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers), **how})
    await send({"type": "http.response.body", "body": body})


def test_early_hints_precede_the_answer():
    """Each Link is a header of an answer 103; a client of HTTP/1.0 gets none, and a broken one is refused."""

    async def hints(scope, receive, send):
        assert "http.response.early_hint" in scope["extensions"]
        await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload", b"</b>"]})
        if scope["http_version"] == "1.1":
            with pytest.raises(ValueError):
                await send({"type": "http.response.early_hint", "links": [b"a\r\nX: y"]})
        await answer(send, b"done")

    with serving_asgi(hints) as worker:
        text = worker.ask(GET % (b"/", CLOSE))
        hint, _, rest = text.partition(b"\r\n\r\n")
        assert hint == b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nLink: </b>"
        assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
        assert worker.ask(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_a_file_is_sent_by_its_path(method, size, tmp_path):
    """With its length; an answer to HEAD has the head only, and the connection stays open."""
    (tmp_path / "file").write_bytes(b"x" * size)

    async def sends(scope, receive, send):
        assert "http.response.pathsend" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

    with serving_asgi(sends) as worker:
        data = method + b" / HTTP/1.1\r\nHost: h\r\n%b\r\n"
        head, _, body = worker.ask(data % b"" + data % CLOSE).partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % size in head or (method == b"HEAD" and not size)
        here = size if method == b"GET" else 0
        assert body[:here] == b"x" * here
        assert body[here:].startswith(b"HTTP/1.1 200 ")
    assert str(tmp_path / "file") not in open_files()


def open_files():
    links = Path("/proc/self/fd").iterdir()
    return {os.readlink(link) for link in links if link.is_symlink()}


def test_a_file_that_is_missing_is_the_applications_fault():
    """The application gets the exception, and the client 500."""

    async def sends(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/no/such/file"})

    with serving_asgi(sends) as worker:
        assert worker.ask(GET % (b"/", b"")).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("te", "headers", "sent"),
    [
        (b"TE: trailers\r\n", [], True),
        (b"TE: gzip, Trailers\r\n", [], True),
        (b"", [], False),
        (b"TE: trailers\r\n", [(b"content-length", b"4")], False),
    ],
)
def test_trailers_of_an_answer(te, headers, sent):
    """They follow a chunked body, for clients that announced to evaluate them; else they are dropped."""

    async def trails(scope, receive, send):
        await answer(send, b"body", headers=headers, trailers=True)
        first = {"headers": [(b"x-sum", b"1")], "more_trailers": True}
        await send({"type": "http.response.trailers", **first})
        await send({"type": "http.response.trailers", "headers": [(b"x-end", b"2")]})

    with serving_asgi(trails) as worker:
        data = GET % (b"/", te) + GET % (b"/", te + CLOSE)
        first, second = worker.ask(data).split(b"HTTP/1.1 200 ")[1:]
        for text in (first, second):
            assert (b"x-sum: 1\r\nx-end: 2\r\n\r\n" in text) is sent
            assert b"body" in text


def test_the_order_of_messages_is_checked(caplog):
    """A body before its head, a second head and unknown messages are RuntimeErrors, and the answer goes on."""

    async def disordered(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        for kind in ("http.response.body", "http.response.trailers", "nonsense"):
            with pytest.raises(RuntimeError):
                await send({"type": kind})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for kind in ("http.response.start", "http.response.trailers", "nonsense"):
            with pytest.raises(RuntimeError):
                await send({"type": kind, "status": 200})
        for wrong in ("text", 7):
            with pytest.raises(TypeError):
                await send({"type": "http.response.body", "body": wrong})
        await send({"type": "http.response.body", "body": memoryview(b"fine")})
        with pytest.raises(RuntimeError, match="after the answer was complete"):
            await send({"type": "http.response.body", "body": b""})
        assert (await receive())["type"] == "http.disconnect"

    with serving_asgi(disordered) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        assert read_answer(sock)[1] == b"fine"
    assert not caplog.records


def test_a_client_that_has_left_is_an_oserror(caplog):
    """`send` raises it, so that a stream ends; that it did is not logged."""
    ended = threading.Event()

    async def streams(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
                await asyncio.sleep(0)
        except OSError as error:
            ended.set()
            raise KeyError("as a framework does") from error

    with serving_asgi(streams) as worker:
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            assert sock.recv(100)
        assert ended.wait(20)
        worker.retire()
        assert worker.ended()
    assert not caplog.records


def test_an_application_that_fails_within_its_answer(caplog):
    """The answer is cut off, so that it does not look complete, and the exception is logged."""

    async def fails(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        if scope["path"] == "/raises":
            raise KeyError("lost")

    with serving_asgi(fails) as worker:
        assert worker.ask(GET % (b"/raises", b"")).endswith(b"4\r\npart\r\n")
        assert worker.ask(GET % (b"/returns", b"")).endswith(b"4\r\npart\r\n")
    logged = [record.getMessage() for record in caplog.records]
    assert logged == [
        "the application failed on GET /raises",
        "the application returned without completing its answer to GET /returns",
    ]


def test_an_application_that_exits_retires_the_worker():
    """SystemExit: its client gets 500, and the worker drains."""

    async def exits(scope, receive, send):
        if scope["type"] == "http":
            raise SystemExit(3)

    with serving_asgi(exits) as worker:
        assert worker.ask(GET % (b"/", b"")).startswith(b"HTTP/1.1 500 ")
        assert worker.ended()


def test_100_continue_is_sent_when_the_application_receives():
    """Not before, and not to a client whose answer has begun."""

    async def answers(scope, receive, send):
        if scope["path"] == "/early":
            await answer(send, b"early")
            assert (await receive())["type"] == "http.disconnect"
            return
        body = (await receive())["body"]
        await answer(send, body)

    head = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with serving_asgi(answers) as worker:
        with worker.connect() as sock:
            sock.sendall(head % b"/")
            assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(b"abc")
            assert read_answer(sock)[1] == b"abc"
        text = worker.ask(head % b"/early")
        assert text.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close\r\n" in text


@pytest.mark.parametrize(("size", "kept"), [(65_536, True), (65_537, False), (10_000_000, False)])
def test_an_answer_before_the_body(size, kept):
    """The rest of a body is dropped up to 64 KiB; above that the connection ends, and the answer arrives."""

    async def early(scope, receive, send):
        await answer(send, scope["path"].encode())

    with serving_asgi(early) as worker, worker.connect() as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        head, body = read_answer(sock)
        assert body == b"/early"
        assert ("Connection: close" in head) is not kept
        if kept:
            sock.sendall(b"x" * size + GET % (b"/next", b""))
            assert read_answer(sock)[1] == b"/next"
