"""WebSockets: how they are counted, timed out, closed and logged."""

import threading

import pytest

from preforkd.config.settings import (
    AccessLogSettings,
    ListenSettings,
    ProxySettings,
    Settings,
)
from tests.worker.asgi.applications import HANDSHAKE, V1, serving_asgi
from tests.worker.serving import read_all


def masked(opcode, payload):
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@pytest.mark.parametrize(
    "frames",
    [
        masked(1, b"\xff"),
        masked(1, b"fine") + masked(1, b"\xff"),
        masked(1, b"fine") + masked(3, b"a reserved opcode"),
        masked(1, b"fine") + b"\x81\x01x",  # not masked
    ],
)
def test_invalid_frames_end_the_connection_without_a_traceback(frames, caplog):
    """Text that is not UTF-8, and bytes that are no frame: any client can send them."""
    with serving_asgi() as worker, worker.connect() as sock:
        sock.sendall(HANDSHAKE % b"")
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
        sock.sendall(frames)
        read_all(sock)
        worker.retire()
        assert worker.ended()
    assert not caplog.records


def test_a_websocket_client_that_does_not_read_is_disconnected():
    """The application gets a disconnect, as for any client that is gone."""
    told = threading.Event()

    async def talks(scope, receive, send):
        if scope["type"] != "websocket":
            raise RuntimeError  # no lifespan
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": b"x" * 9_000_000})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        told.set()

    with serving_asgi(talks, body_timeout=0.3) as worker, worker.connect() as sock:
        sock.sendall(HANDSHAKE % b"")
        assert told.wait(20)


def test_a_websocket_is_not_a_busy_request():
    """An open WebSocket leaves the slot idle, and is closed with 1012 when the worker retires."""
    client = pytest.importorskip("websockets.sync.client")
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
    with serving_asgi() as worker, client.connect(f"ws://127.0.0.1:{worker.address[1]}/") as talks:
        assert talks.recv().startswith("ws ('127.0.0.1'")
        talks.send("hello")
        assert talks.recv() == "HELLO"
        assert worker.slot.read(1e18).busy_since is None
        worker.retire()
        with pytest.raises(closed) as caught:
            talks.recv()
        assert caught.value.rcvd.code == 1012
        assert worker.ended()


def test_a_silent_websocket_stays_open():
    """The timeouts of HTTP requests do not apply to it."""
    client = pytest.importorskip("websockets.sync.client")
    how = {"header_timeout": 0.1, "keep_alive": 0.1, "body_timeout": 0.1}
    with (
        serving_asgi(**how) as worker,
        client.connect(f"ws://127.0.0.1:{worker.address[1]}/") as talks,
    ):
        talks.recv()
        with pytest.raises(TimeoutError):
            talks.recv(0.5)
        talks.send("still here")
        assert talks.recv() == "STILL HERE"


def test_a_websocket_through_a_proxy(tmp_path):
    """The client is the one that the PROXY header names, and the access log has status 101."""
    client = pytest.importorskip("websockets.sync.client")
    settings = Settings(
        listen=(ListenSettings(name="test", proxy_protocol=True),),
        proxy=ProxySettings(trusted=("127.0.0.1",)),
        access_log=AccessLogSettings(target=str(tmp_path / "log")),
    )
    with serving_asgi(whole=settings) as worker:
        sock = worker.connect()
        sock.sendall(V1)
        with client.connect("ws://localhost/", sock=sock) as talks:
            assert talks.recv() == "ws ('1.2.3.4', 1000)"
    assert "1.2.3.4 - - " in (tmp_path / "log").read_text()
    assert " 101 " in (tmp_path / "log").read_text()
