"""What is logged of an answer, and when: the access log of an ASGI server."""

import asyncio
import json
import socket
import struct
import threading
from types import SimpleNamespace

import pytest

from preforkd.config.settings import (
    AccessLogSettings,
    HttpSettings,
    Settings,
)
from preforkd.http.head import RequestHead
from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, CompletedRequest
from preforkd.worker.asgi.output import Output
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


class Transport:
    """A transport whose client has acknowledged ``acked`` bytes; it is its own socket."""

    family = socket.AF_INET

    def __init__(self):
        self.written, self.acked, self.buffered, self.closing = b"", 0, 0, False

    def write(self, data):
        self.written += data

    def get_extra_info(self, _name):
        return self

    def getsockopt(self, *_):
        return struct.pack("120xQ", self.acked)

    def get_write_buffer_size(self):
        return self.buffered

    def is_closing(self):
        return self.closing


class Made:
    """An output with a transport of the test; ``log`` are the entries, ``timers`` those of the loop."""

    def __init__(self, *, logs=True):
        self.log, self.timers = [], []
        shared = SimpleNamespace(
            loop=self,
            limits=HttpSettings(),
            log=True if logs else None,
            write_log=lambda entry: self.log.append((entry.status, entry.length)),
        )
        self.output = Output(shared)
        self.output.transport = self.transport = Transport()

    def call_later(self, seconds, call):
        self.timers.append(seconds)
        return SimpleNamespace(cancel=self.timers.clear)

    def entry(self, length):
        head = RequestHead("GET", b"/", "1.1", (), True, 0, False)
        return CompletedRequest("127.0.0.1", head, 200, length, 0.1)


def test_an_answer_is_logged_when_it_was_sent():
    """At once where the client takes it, or else when it has taken most of it."""
    made = Made()
    made.output.write(b"x" * 100)
    made.output.log(made.entry(80))
    assert made.log == [(200, 80)]
    made.output.pause_writing()
    made.output.log(made.entry(70))
    assert made.log == [(200, 80)]
    made.output.resume_writing()
    assert made.log == [(200, 80), (200, 70)]
    made.output.resume_writing()
    made.output.output_lost(whole=True)
    assert made.log == [(200, 80), (200, 70)]


@pytest.mark.parametrize(
    ("acked", "whole", "paused", "logged"),
    [
        (200, False, True, (200, 80)),
        (160, False, True, (200, 40)),
        (101, False, True, (200, 0)),
        (100, False, True, (CLIENT_CLOSED_REQUEST, 0)),
        (0, False, False, (CLIENT_CLOSED_REQUEST, 0)),
        (160, True, True, (200, 40)),
        (0, True, False, (200, 80)),
    ],
)
def test_what_is_logged_of_an_answer_whose_connection_is_lost(acked, whole, paused, logged):
    """The bytes of its body that the client has acknowledged; 499 if it has none of the answer."""
    made = Made()
    made.output.write(b"y" * 100)  # an answer before it
    made.output._written_before = 100
    made.output.write_last(b"x" * 100)
    assert made.transport.written == b"y" * 100 + b"x" * 100
    made.transport.acked, made.transport.closing = acked, True
    if paused:
        made.output.pause_writing()
    made.output.log(made.entry(80))
    assert made.log == []
    made.output.output_lost(whole=whole)
    assert made.log == [logged]
    made.output.log(made.entry(80))  # the application ends later
    assert made.log == [logged, logged]


def test_a_lost_connection_has_no_timeout_for_sending():
    """It runs while output is unsent; without an access log as well."""
    made = Made(logs=False)
    made.transport.buffered = 9
    made.output.pause_writing()
    made.output.watch_sending()
    assert made.timers == [HttpSettings().body_timeout]
    made.output.output_lost(whole=False)
    assert made.timers == []


@pytest.mark.parametrize("lost", [False, True])
def test_a_sender_waits_while_writing_is_paused(lost):
    """Until the client has taken most of the output, or is gone."""
    made = Made()

    async def send():
        await made.output.drain()
        made.output.pause_writing()
        assert made.output.write_paused
        waiting = asyncio.ensure_future(made.output.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        if lost:
            made.output.output_lost(whole=False)
        else:
            made.output.resume_writing()
            assert not made.output.write_paused
        await asyncio.wait_for(waiting, 20)
        await made.output.drain()

    asyncio.run(send())
