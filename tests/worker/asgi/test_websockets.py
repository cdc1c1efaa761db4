"""WebSockets: how they are counted, timed out, closed and logged."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time

import pytest

from preforkd.config.settings import (
    AccessLogSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
    WebSocketSettings,
)
from preforkd.worker.asgi import websocket_support
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    HANDSHAKE,
    V1,
    listener_settings,
    logged_requests,
    serving_asgi,
)
from tests.worker.asgi.websocket_frames import frame, parsed
from tests.worker.certificate import CERTIFICATE, KEY
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


# --- what only a real connection shows ------------------------------------------------------------


def opened(worker, more=b"", path=b"/ws"):
    """Return a connected socket behind the answer 101."""
    sock = worker.connect()
    sock.sendall(HANDSHAKE.replace(b"/ws", path) % b"" + more)
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(1)
        assert piece, head
        head += piece
    assert head.startswith(b"HTTP/1.1 101 "), head
    return sock


async def echo(scope, receive, send):
    if scope["type"] != "websocket":
        raise RuntimeError  # no lifespan
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("size", [0, 64, 70_000, 3_000_000])
def test_messages_of_each_size_come_back(size, compression):
    """With a client that is not ours, compressed or not, text and bytes."""
    client = pytest.importorskip("websockets.sync.client")
    text = "κόσμε-"[: size or 0] * (size // 6)
    with (
        serving_asgi(echo) as worker,
        client.connect(
            f"ws://127.0.0.1:{worker.address[1]}/", compression=compression, max_size=None
        ) as talks,
    ):
        for message in (text, text.encode()[::-1], text):
            talks.send(message)
            assert talks.recv(20) == message


def test_fragments_of_a_client_come_back_as_one_message():
    client = pytest.importorskip("websockets.sync.client")
    with (
        serving_asgi(echo) as worker,
        client.connect(f"ws://127.0.0.1:{worker.address[1]}/") as talks,
    ):
        talks.send(iter(["one ", "two ", "three"]))
        assert talks.recv(20) == "one two three"


@pytest.mark.parametrize("step", [1, 7])
def test_a_handshake_and_frames_in_small_segments(step):
    """Handshake, message, Ping and Close, wherever they are cut."""
    data = HANDSHAKE % b"" + masked(1, b"hello") + masked(9, b"x") + masked(8, b"\x03\xe8")
    with serving_asgi(echo) as worker, worker.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step):
            sock.sendall(data[at : at + step])
        frames = read_all(sock).partition(b"\r\n\r\n")[2]
    assert sorted(parsed(frames)[:2]) == [(0x81, b"hello"), (0x8A, b"x")]
    assert parsed(frames)[2:] == [(0x88, b"\x03\xe8")]


def test_frames_in_the_segment_of_the_handshake():
    with serving_asgi(echo) as worker:
        answer = worker.ask(HANDSHAKE % b"" + masked(1, b"early") + masked(8, b""))
    assert parsed(answer.partition(b"\r\n\r\n")[2]) == [(0x81, b"early"), (0x88, b"")]


def test_a_close_between_fragments_is_answered_with_its_code():
    first = masked(1, b"ab")
    with serving_asgi(echo) as worker, opened(worker) as sock:
        sock.sendall(bytes([first[0] & 0x7F]) + first[1:] + masked(8, b"\x03\xe8"))
        assert parsed(read_all(sock)) == [(0x88, b"\x03\xe8")]


def test_another_version_is_answered_with_426():
    with serving_asgi(echo) as worker:
        answer = worker.ask((HANDSHAKE % b"").replace(b"Version: 13", b"Version: 8"))
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


def test_without_the_library_a_handshake_is_answered_with_501(monkeypatch):
    """The text says why; plain requests are served."""
    monkeypatch.setattr(websocket_support, "load", lambda: None)
    with serving_asgi() as worker:
        answer = worker.ask(HANDSHAKE % b"")
        assert answer.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
        assert b"WebSockets are not supported" in answer
        assert worker.ask(GET % (b"/", CLOSE)).startswith(b"HTTP/1.1 200 ")


def test_a_response_of_the_application_ends_the_connection(tmp_path):
    """websocket.http.response; the access log has its status and size."""

    async def denies(scope, receive, send):
        await receive()
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"who are you"})

    path = tmp_path / "log"
    access = AccessLogSettings(target=str(path), format="json")
    with serving_asgi(denies, access=access) as worker:
        answer = worker.ask(HANDSHAKE % b"")
        assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert answer.endswith(b"\r\n\r\nwho are you")
        assert logged_requests(path, 1) == [(401, 11, "GET", "/ws")]


def test_a_close_reaches_a_client_that_still_sends():
    """Much input behind an invalid frame: a reset would destroy the Close before it is read."""
    with serving_asgi(echo) as worker, opened(worker) as sock:
        sock.sendall(masked(3, b"") + bytes(500_000))
        sock.shutdown(socket.SHUT_WR)
        [(first, payload)] = parsed(read_all(sock))
        assert (first, payload[:2]) == (0x88, b"\x03\xea")


def test_an_application_that_does_not_receive_holds_up_its_client():
    """The queue is bounded: the rest waits in the client's socket, and nothing is lost."""
    count, go = 3000, threading.Event()

    async def late(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while not go.is_set():
            await asyncio.sleep(0.01)
        for number in range(count):
            assert (await receive())["bytes"][:4] == number.to_bytes(4, "big")
        await send({"type": "websocket.send", "text": "all"})

    messages = [frame(2, number.to_bytes(4, "big") + bytes(5000)) for number in range(count)]
    with serving_asgi(late) as worker, opened(worker) as sock:
        data, sent = b"".join(messages), 0
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                sent += sock.send(data[sent : sent + 100_000])
        assert sent < len(data) - 100_000
        sock.settimeout(20)
        go.set()
        sock.sendall(data[sent:])
        assert sock.recv(100).startswith(b"\x81\x03all")


def test_an_application_that_sends_much_is_held_up_by_its_client():
    """send() returns when there is room; all of it arrives."""
    sent = []

    async def much(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(200):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            sent.append(1)

    with serving_asgi(much) as worker, opened(worker) as sock:
        before = -1
        while before != len(sent) or not sent:
            before = len(sent)
            time.sleep(0.3)
        assert len(sent) < 150
        sock.sendall(masked(8, b""))
        data = bytearray()
        while piece := sock.recv(1 << 20):
            data += piece
        assert len(data) >= 100_010 * len(sent)


def test_a_failing_application_is_logged_once_and_the_worker_serves_on(caplog):
    async def fails(scope, receive, send):
        if scope["path"] == "/fails":
            await receive()
            await send({"type": "websocket.accept"})
            raise ValueError("its own")
        await echo(scope, receive, send)

    with serving_asgi(fails) as worker:
        with opened(worker, path=b"/fails") as sock:
            assert sock.recv(100) == b"\x88\x02\x03\xf3"
        [record] = [one for one in caplog.records if one.exc_info]
        assert record.getMessage() == "the application failed on WebSocket /fails"
        with opened(worker) as sock:
            sock.sendall(masked(1, b"on"))
            assert sock.recv(100) == b"\x81\x02on"


def test_an_application_that_exits_retires_the_worker():
    async def exits(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            raise SystemExit(3)
        raise RuntimeError  # no lifespan

    with serving_asgi(exits) as worker:
        assert worker.ask(HANDSHAKE % b"").startswith(b"HTTP/1.1 500 ")
        assert worker.ended()


def test_a_websocket_is_counted_when_it_ends():
    with serving_asgi(echo) as worker:
        with opened(worker) as sock:
            assert worker.slot.read(1e18).requests == 0
            assert worker.slot.read(1e18).connections == 1
            sock.sendall(masked(8, b""))
            assert read_all(sock) == b"\x88\x00"
        worker.retire()
        assert worker.ended()
        assert worker.slot.read(1e18).requests == 1


def test_a_silent_client_is_sent_a_ping_and_disconnected():
    whole = Settings(websocket=WebSocketSettings(ping_interval=0.1, ping_timeout=0.2))
    with serving_asgi(echo, whole=whole) as worker, opened(worker) as sock:
        first, second = parsed(read_all(sock))
        assert first == (0x89, b"")
        assert second[1][:2] == b"\x03\xf3"


@pytest.mark.parametrize("valid", [True, False])
def test_over_tls(valid):
    """An echo; and the Close for an invalid frame, where the stream has no end of its own."""
    settings = listener_settings(
        tls=True, tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY)
    )
    context = ssl.create_default_context(cadata=CERTIFICATE)
    with (
        serving_asgi(whole=settings) as worker,
        context.wrap_socket(worker.connect(), server_hostname="localhost") as sock,
    ):
        sock.sendall(HANDSHAKE % b"")
        data = b""
        while b"wss (" not in data:
            data += sock.recv(65536)
        sock.sendall(masked(1, b"hello") if valid else masked(3, b""))
        answer = sock.recv(65536)
        assert answer == b"\x81\x05HELLO" if valid else answer[:4:3] == b"\x88\xea"
