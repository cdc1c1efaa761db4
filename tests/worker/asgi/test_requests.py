"""Requests and answers of an ASGI application, over a socket."""

import asyncio
import threading

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
from tests.worker.serving import read_all, read_answer


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
        reading = worker.slot.read(1e18)
        assert (reading.requests, reading.accepted, reading.busy_since) == (5, 1, None)


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
        assert b"transfer-encoding: chunked" in head
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
        assert answer.endswith(b"\r\n\r\nInternal Server Error")


def test_max_requests_closes_the_connection():
    """The last request gets Connection: close; with keep_alive 0 the first is the last."""
    with serving_asgi(max_requests=2) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        assert "connection: close" not in read_answer(sock)[0]
        sock.sendall(GET % (b"/", b""))
        assert b"connection: close" in read_all(sock)
    with serving_asgi(keep_alive=0) as worker:
        assert b"connection: close" in worker.ask(GET % (b"/", b""))


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
        assert b"transfer-encoding" not in head
