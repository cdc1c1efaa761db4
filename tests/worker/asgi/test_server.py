"""The ASGI server: how connections begin (PROXY protocol, TLS), and how a drain ends them."""

import asyncio
import ssl

import pytest

from preforkd.config.settings import (
    HttpSettings,
    ProxySettings,
    TlsSettings,
)
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    V1,
    V2,
    closed_without_answer,
    listener_settings,
    serving_asgi,
)
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all, read_answer


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("secure", [False, True])
def test_the_proxy_protocol(header, secure):
    """Versions 1 and 2, in pieces, before plain HTTP and TLS; half a header delays no other connection."""
    settings = listener_settings(
        proxy_protocol=True,
        tls=secure,
        proxy=ProxySettings(trusted=("127.0.0.1",)),
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
    )
    with serving_asgi(whole=settings) as worker, worker.connect() as half, worker.connect() as sock:
        half.sendall(header[:5])
        for at in range(len(header)):
            sock.sendall(header[at : at + 1])
        context = ssl.create_default_context(cadata=CERTIFICATE)
        with context.wrap_socket(sock, server_hostname="localhost") if secure else sock as client:
            client.sendall(GET % (b"/", CLOSE))
            scheme = b"https" if secure else b"http"
            assert scheme + b" ('1.2.3.4', 1000) /" in read_all(client)


def test_a_proxy_header_of_an_untrusted_peer_is_refused(caplog):
    """The connection is closed, as is one of a trusted peer without a PROXY header."""
    with (
        serving_asgi(whole=listener_settings(proxy_protocol=True)) as worker,
        worker.connect() as sock,
    ):
        assert sock.recv(9) == b""
    assert "not in proxy.trusted" in caplog.text
    trusted = listener_settings(proxy_protocol=True, proxy=ProxySettings(trusted=("127.0.0.1",)))
    with serving_asgi(whole=trusted) as worker:
        assert closed_without_answer(worker, GET % (b"/", b""))


def test_a_stalled_tls_handshake_delays_no_other_connection():
    """A client that sends nothing delays no other handshake; ALPN selects http/1.1."""
    settings = listener_settings(
        tls=True,
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
        http=HttpSettings(header_timeout=1),
    )
    context = ssl.create_default_context(cadata=CERTIFICATE)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with serving_asgi(whole=settings) as worker, worker.connect() as silent:
        silent.sendall(b"\x16\x03\x01")
        with context.wrap_socket(worker.connect(), server_hostname="localhost") as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"
            sock.sendall(GET % (b"/", CLOSE))
            assert b"https (" in read_all(sock)


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
        assert b"connection: close" in read_all(quiet)
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
