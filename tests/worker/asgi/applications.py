"""What the tests of the ASGI server share: an application that shows its scope, requests, settings."""

import json
import struct
import time

from preforkd.config.settings import (
    HttpSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from tests.worker.serving import serving

GET = b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"

CLOSE = b"Connection: close\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


async def show_scope(scope, receive, send):
    """Answer with scheme, client and path of the scope, and the body; echo on a WebSocket."""
    if scope["type"] == "websocket":
        await echo_websocket(scope, receive, send)
        return
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text = f"{scope['scheme']} {scope['client']} {scope['path']} ".encode() + body
    names = b" ".join(name for name, _ in scope["headers"])
    headers = [(b"content-length", b"%d" % len(text)), (b"x-names", names)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def echo_websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": f"{scope['scheme']} {scope['client']}"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"].upper()})


def serving_asgi(application=show_scope, **how):
    return serving(application, kind="asgi", **how)


def listener_settings(http=None, proxy=None, tls_section=None, **how):
    return Settings(
        listen=(ListenSettings(name="test", **how),),
        http=http or HttpSettings(),
        proxy=proxy or ProxySettings(),
        tls=tls_section or TlsSettings(),
    )


def closed_without_answer(worker, data):
    """Return whether the connection ends without an answer."""
    try:
        return worker.ask(data) == b""
    except ConnectionError:
        return True


def logged_requests(path, count):
    """Return status, bytes, method and target of ``count`` lines of an access log in JSON."""
    deadline = time.monotonic() + 20
    while not path.exists() or path.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    entries = map(json.loads, path.read_text().splitlines())
    return [(one["status"], one["bytes"], one["method"], one["target"]) for one in entries]


V1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n"

V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(
    "!H4s4sHH", 12, b"\1\2\3\4", b"\5\6\7\10", 1000, 80
)
