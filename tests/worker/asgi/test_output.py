"""What is logged of an answer, and when: the access log of an ASGI server."""

import json
import socket
import struct
import threading

import pytest

from preforkd.config.settings import (
    AccessLogSettings,
    HttpSettings,
    Settings,
)
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    HANDSHAKE,
    POST,
    logged_requests,
    serving_asgi,
    show_scope,
)
from tests.worker.serving import read_all, read_answer


def test_the_access_log(tmp_path):
    """One line for each request, with status and bytes; a failure is 500."""

    async def fails(scope, receive, send):
        if scope["path"] == "/fails":
            raise KeyError("boom")
        await show_scope(scope, receive, send)

    target = tmp_path / "log"
    with serving_asgi(fails, access=AccessLogSettings(target=str(target), format="json")) as worker:
        worker.ask(GET % (b"/a%20b?c=d", CLOSE))
        worker.ask(GET % (b"/fails", CLOSE))
    first, second = map(json.loads, target.read_text().splitlines())
    assert (first["status"], first["target"], first["remote"]) == (200, "/a%20b?c=d", "127.0.0.1")
    assert first["bytes"] > 10
    assert (second["status"], second["bytes"]) == (
        500,
        len(b"500 Internal Server Error: the application failed\n"),
    )


CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status", "method", "target"),
    [
        (GET % (b"/" + b"a" * 600, b""), 414, "GET", None),
        (GET % (b"/a", b"a: b\r\n" * 30), 431, "GET", "/a"),
        (POST + b"Content-Length: 9999\r\n\r\n", 413, "POST", "/"),
        (CHUNKS + b"7d1\r\n" + b"x" * 2001, 413, "POST", "/"),
        (CHUNKS + b"x\r\n", 400, "POST", "/"),
        (b"GET /late HTTP/1.1\r\nHo", 408, "GET", "/late"),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 501, "CONNECT", "h:80"),
        (HANDSHAKE % b"Content-Length: 5\r\n", 400, "GET", "/ws"),
    ],
)
def test_a_refused_request_is_in_the_access_log(data, status, method, target, tmp_path):
    """Each refusal is one entry with its status, and the method and target as far as parsed."""
    settings = Settings(
        http=HttpSettings(max_line=512, max_fields=20, max_body=2000, header_timeout=0.2),
        access_log=AccessLogSettings(target=str(tmp_path / "log"), format="json"),
    )
    with serving_asgi(whole=settings) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/before", b""))
        read_answer(sock)
        sock.sendall(data)
        answer = read_all(sock)
        before, closed_without_answer = logged_requests(tmp_path / "log", 2)
    assert (before[0], before[3]) == (200, "/before")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    body = answer.partition(b"\r\n\r\n")[2]
    assert closed_without_answer == (status, len(body), method, target or "/" + "a" * 600)


def test_input_that_is_no_request_is_in_the_access_log_escaped(tmp_path):
    """The entry shows the bytes with control characters escaped."""
    with serving_asgi(
        access=AccessLogSettings(target=str(tmp_path / "log"), format="json")
    ) as worker:
        answer = worker.ask(b"\x16\x03\x01 nonsense\r\n")
        length = len(answer.partition(b"\r\n\r\n")[2])
        assert logged_requests(tmp_path / "log", 1) == [(400, length, "", r"\x16\x03\x01 nonsense")]


def test_clients_that_disconnect_in_the_access_log(tmp_path):
    """499 if the client left before the answer; else the bytes that it acknowledged."""
    target, seen = tmp_path / "log", threading.Event()

    async def big(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        seen.set()
        while scope["path"] == "/waits" and (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})

    with serving_asgi(big, access=AccessLogSettings(target=str(target), format="json")) as worker:
        with worker.connect() as sock:
            sock.sendall(b"GET /half HTTP/1.1\r\nHost")
        assert logged_requests(target, 1)[0] == (499, 0, "GET", "/half")
        with worker.connect() as sock:
            sock.sendall(GET % (b"/waits", b""))
            assert seen.wait(20)
        assert logged_requests(target, 2)[1] == (499, 0, "GET", "/waits")
        sock = worker.connect()
        sock.sendall(GET % (b"/big", b""))
        size = len(sock.recv(1000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        status, count, *_ = logged_requests(target, 3)[2]
        assert status == 200
        assert size - 500 < count < 30_000_000
        assert b"xxxx" in worker.ask(GET % (b"/big", CLOSE))
        assert logged_requests(target, 4)[3] == (200, 30_000_000, "GET", "/big")
        worker.ask(b"HEAD /big HTTP/1.1\r\nHost: h\r\n" + CLOSE + b"\r\n")
        assert logged_requests(target, 5)[4] == (200, 0, "HEAD", "/big")
