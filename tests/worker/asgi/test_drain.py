"""How a drain ends connections, requests and WebSockets."""

import asyncio

import pytest

from tests.worker.asgi.applications import (
    GET,
    serving_asgi,
)
from tests.worker.serving import read_all, read_answer


def test_a_retiring_worker_answers_requests_that_have_begun():
    """Half a head is waited for and answered; a new connection gets the answer to its first request."""
    with serving_asgi() as worker, worker.connect() as half, worker.connect() as quiet:
        with worker.connect() as kept:
            kept.sendall(GET % (b"/", b""))
            read_answer(kept)
            half.sendall(b"GET /half")
            kept.sendall(GET % (b"/", b""))
            read_answer(kept)
            worker.retire()
            assert read_all(kept) == b""
        half.sendall(b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"/half" in read_all(half)
        quiet.sendall(GET % (b"/first", b""))
        assert b"Connection: close" in read_all(quiet)
        assert worker.ended()


def endless_events(events):
    """Return an application that sends events without end; it appends what happens to ``events``."""

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                part = {"type": "http.response.body", "body": b"data: x\n\n", "more_body": True}
                await send(part)
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    return application


def test_endless_requests_are_cancelled_before_the_end_of_the_drain(caplog):
    """The lifespan's shutdown runs afterwards; the log names the request, without a traceback."""
    events = []
    with serving_asgi(endless_events(events)) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/events", b""))
        assert b"data: x" in sock.recv(65536) + sock.recv(65536)
        worker.retire(within=1.0)
        assert worker.ended()
        assert read_all(sock).endswith(b"data: x\n\n\r\n")
    assert events == ["cancelled", "shutdown"]
    (record,) = caplog.records
    assert "1 requests are still running 0.25 s before" in record.getMessage()
    assert "GET '/events'" in record.getMessage()


def test_a_client_that_does_not_read_does_not_prolong_the_drain():
    """The unsent output is dropped at the end of the drain, and the lifespan's shutdown runs."""
    events = []

    async def much(scope, receive, send):
        if scope["type"] == "lifespan":
            await endless_events(events)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 50_000_000})

    with serving_asgi(much) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/much", b""))
        assert sock.recv(10)
        worker.retire(within=1.0)
        assert worker.ended()
    assert events == ["shutdown"]


def test_websockets_are_closed_before_the_end_of_a_short_drain():
    """The linger time is cut to the drain's: the client gets 1012, not a reset."""
    client = pytest.importorskip("websockets.sync.client")
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
    with serving_asgi() as worker, client.connect(f"ws://127.0.0.1:{worker.address[1]}/") as talks:
        talks.recv()
        worker.retire(linger=60.0, within=1.0)
        with pytest.raises(closed) as caught:
            talks.recv()
        assert caught.value.rcvd.code == 1012
        assert worker.ended()


def test_a_stream_that_listens_ends_before_it_is_cancelled(caplog):
    """http.disconnect is received before the end of the drain, and what is sent then still arrives."""

    async def polls(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"last"})

    with serving_asgi(polls) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        assert b"first" in sock.recv(65536)
        worker.retire(within=1.0)
        assert read_all(sock).endswith(b"last\r\n0\r\n\r\n")
        assert worker.ended()
    assert not caplog.records
