"""What precedes a stream handler: the PROXY protocol's header and the TLS handshake."""

import contextlib
import socket
import socketserver
import ssl
import struct
import threading
import time

import pytest

from preforkd.config.settings import (
    HttpSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all, serving

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
V2_TCP6 = (
    V2
    + b"\x21\x21"
    + struct.pack("!H", 36)
    + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 4711, 443)
)
LOCAL = V2 + b"\x20\x00\0\0"


def settings(*, tls=False, proxied=False, trusted=("127.0.0.1",), **http):
    """Return settings for one listener."""
    return Settings(
        listen=(ListenSettings(name="test", tls=tls, proxy_protocol=proxied),),
        tls=TlsSettings(certificate=CERTIFICATE, key=KEY) if tls else TlsSettings(),
        proxy=ProxySettings(trusted=trusted) if proxied else ProxySettings(),
        http=HttpSettings(**http),
    )


CLIENT = ssl.create_default_context(cadata=CERTIFICATE)
CLIENT.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # an end without TLS's own goodbye is an error


def secured(sock):
    """Return the client's side of a TLS connection."""
    return CLIENT.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)


def tell_peer(connection, peer):
    """Answer with the peer, and with what the client has sent first."""
    connection.sendall(f"{peer[0]} {peer[1]} {type(connection).__name__} ".encode())
    connection.sendall(connection.recv(100))


def test_a_handler_gets_a_tls_socket():
    """With the peer as accept(2) names it, blocking; the client is told of the end by TLS itself."""
    with serving(tell_peer, kind="stream", whole=settings(tls=True)) as worker:
        with secured(worker.connect()) as sock:
            port = sock.getsockname()[1]
            sock.sendall(b"hello")
            assert read_all(sock) == f"127.0.0.1 {port} SSLSocket hello".encode()
            assert sock.selected_alpn_protocol() is None
        worker.retire()
        assert worker.ended()
        reading = worker.slot.read(1e18)
        assert (reading.requests, reading.connections, reading.busy_since) == (1, 0, None)


def test_a_handler_of_socketserver_serves_over_tls():
    """A StreamRequestHandler's files work as on a plain socket."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline().upper())

    with (
        serving(Handler, kind="stream", whole=settings(tls=True)) as worker,
        secured(worker.connect()) as sock,
    ):
        sock.sendall(b"hello\n")
        assert read_all(sock) == b"HELLO\n"


@pytest.mark.parametrize(
    ("header", "peer"),
    [(V1, "192.0.2.7 4711"), (V2_TCP6, "2001:db8::7 4711"), (LOCAL, "127.0.0.1 ")],
)
@pytest.mark.parametrize("tls", [False, True])
def test_the_peer_is_the_one_that_a_trusted_proxy_names(header, peer, tls):
    """By both versions; of the proxy's own checks it is the proxy. TLS begins behind the header."""
    with serving(tell_peer, kind="stream", whole=settings(proxied=True, tls=tls)) as worker:
        sock = worker.connect()
        sock.sendall(header)
        with secured(sock) if tls else sock as sock:
            sock.sendall(b"hello")
            answer = read_all(sock).decode()
    assert answer.startswith(peer)
    assert answer.endswith(" hello")


@pytest.mark.parametrize(
    ("header", "peer"),
    [(V1, ("192.0.2.7", 4711)), (V2_TCP6, ("2001:db8::7", 4711, 0, 0))],
)
def test_the_peer_has_the_form_of_its_family(header, peer):
    """As accept(2) returns it, whichever family the proxy's own connection has."""
    seen = []
    with (
        serving(
            lambda _, found: seen.append(found), kind="stream", whole=settings(proxied=True)
        ) as worker,
        worker.connect() as sock,
    ):
        sock.sendall(header)
        assert read_all(sock) == b""
    assert seen == [peer]


def test_a_header_in_pieces_is_awaited():
    """Each byte on its own, and the handler's first byte behind it."""
    with (
        serving(tell_peer, kind="stream", whole=settings(proxied=True)) as worker,
        worker.connect() as sock,
    ):
        for position in range(len(V1)):
            sock.sendall(V1[position : position + 1])
        sock.sendall(b"x")
        assert read_all(sock) == b"192.0.2.7 4711 socket x"


@pytest.mark.parametrize("how", [{"trusted": ("192.0.2.1",)}, {}])
def test_whoever_is_not_a_trusted_proxy_is_refused(how, caplog):
    """A stranger who claims to be somebody else, and a proxy that sends no header: no handler sees them."""
    seen = []
    whole = settings(proxied=True, **how)
    with serving(lambda *args: seen.append(args), kind="stream", whole=whole) as worker:
        data = V1 if how else b"GET / HTTP/1.1\r\n\r\n"
        with worker.connect() as sock, contextlib.suppress(ConnectionError):
            sock.sendall(data)
            assert read_all(sock) == b""
    assert not seen
    assert ("refused: not in proxy.trusted" in caplog.text) is bool(how)


def test_slow_clients_delay_nobody_and_are_given_up():
    """Silent ones, half a header, half a handshake: others are served at once, and theirs end in time."""
    handler_seen = []

    def handle(connection, peer):
        handler_seen.append(peer)
        connection.sendall(b"served")

    whole = settings(tls=True, proxied=True, header_timeout=2.0)
    with serving(handle, kind="stream", whole=whole) as worker:
        silent = [worker.connect() for _ in range(20)]
        half = worker.connect()
        half.sendall(V1[:10])
        shaking = worker.connect()
        shaking.sendall(V1 + b"\x16\x03\x01\x02\x00")
        begun = time.monotonic()
        for _ in range(5):
            sock = worker.connect()
            sock.sendall(V1)
            with secured(sock) as sock:
                assert read_all(sock) == b"served"
        for sock in (*silent, half, shaking):
            with contextlib.suppress(ConnectionError):
                assert sock.recv(100) == b""
            sock.close()
        assert time.monotonic() - begun >= 1.5
        assert len(handler_seen) == 5
        worker.retire()
        assert worker.ended()
        assert worker.slot.read(1e18).connections == 0


def test_openings_go_on_while_a_handler_has_the_worker():
    """A handshake that began before is made meanwhile, one that is late ends; it is served afterwards."""
    entered, leave = threading.Event(), threading.Event()

    def handle(connection, _peer):
        word = connection.recv(10)
        if word == b"long":
            entered.set()
            assert leave.wait(30)
        connection.sendall(word)

    whole = settings(tls=True, proxied=True, header_timeout=3.0)
    with serving(handle, kind="stream", whole=whole) as worker:
        late, begun, first = (worker.connect() for _ in range(3))
        begun.sendall(V1[:10])
        first.sendall(V1)
        # The others are accepted, and wait in the worker, when the first has it.
        worker_has = lambda: worker.slot.read(1e18).accepted == 3  # noqa: E731
        deadline = time.monotonic() + 20
        while not worker_has():
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        with secured(first) as first:
            first.sendall(b"long")
            assert entered.wait(20)
            begun.sendall(V1[10:])
            with secured(begun) as begun:  # the handshake is complete, and the handler still busy
                assert not leave.is_set()
                with contextlib.suppress(ConnectionError):
                    assert late.recv(10) == b""
                begun.sendall(b"short")
                leave.set()
                assert read_all(first) == b"long"
                assert read_all(begun) == b"short"
        late.close()


def test_what_is_no_tls_costs_its_connection_only(caplog):
    """Plain text, a reset, a client that leaves: nothing is logged, the next one is served."""
    whole = settings(tls=True)
    with serving(lambda sock, _peer: sock.sendall(b"x"), kind="stream", whole=whole) as worker:
        with worker.connect() as sock, contextlib.suppress(ConnectionError):
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            read_all(sock)
        for _ in range(20):
            sock = worker.connect()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        worker.connect().close()
        with secured(worker.connect()) as sock:
            assert read_all(sock) == b"x"
    assert not caplog.records


def test_a_handler_that_fails_cuts_a_tls_connection_off():
    """What the client has looks not complete; the next one is served."""

    def handle(connection, _peer):
        connection.sendall(b"half")
        if connection.recv(1) == b"x":
            raise RuntimeError("a broken handler")

    with serving(handle, kind="stream", whole=settings(tls=True)) as worker:
        with secured(worker.connect()) as sock:
            sock.sendall(b"x")
            assert sock.recv(4) == b"half"
            with pytest.raises((ssl.SSLError, ConnectionError)):
                sock.recv(1)
        with secured(worker.connect()) as sock:
            sock.sendall(b"y")
            assert read_all(sock) == b"half"


def test_it_leaves_after_the_connections_that_are_being_opened():
    """Told to leave, it serves whom it has accepted: nobody else would."""
    whole = settings(proxied=True)
    with serving(tell_peer, kind="stream", whole=whole) as worker, worker.connect() as sock:
        sock.sendall(V1[:10])
        deadline = time.monotonic() + 20
        while worker.slot.read(1e18).connections != 1:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        worker.retire()
        sock.sendall(V1[10:] + b"hello")
        assert read_all(sock) == b"192.0.2.7 4711 socket hello"
        assert worker.ended()


def test_no_more_are_opened_than_is_allowed():
    """With http.connections silent ones the worker accepts no more, until they are given up."""
    whole = settings(proxied=True, connections=3, header_timeout=1.0)
    with serving(tell_peer, kind="stream", whole=whole) as worker:
        silent = [worker.connect() for _ in range(6)]
        with worker.connect() as sock:
            sock.sendall(V1 + b"hello")
            assert read_all(sock) == b"192.0.2.7 4711 socket hello"
        for each in silent:
            each.close()


def test_a_proxy_that_leaves_within_its_header_is_let_go(caplog):
    """At once, not when its time is over; nothing is logged of it."""
    whole = settings(proxied=True, header_timeout=60.0)
    with serving(tell_peer, kind="stream", whole=whole) as worker, worker.connect() as sock:
        sock.sendall(V1[:10])
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    assert not caplog.records


def test_a_plain_listener_beside_another_one():
    """What has nothing before the handler is served as ever, while others are opened."""
    whole = Settings(
        listen=(ListenSettings(name="secure", tls=True), ListenSettings(name="test")),
        tls=TlsSettings(certificate=CERTIFICATE, key=KEY),
    )
    with serving(tell_peer, kind="stream", whole=whole) as worker, worker.connect() as sock:
        port = sock.getsockname()[1]
        sock.sendall(b"hello")
        assert read_all(sock) == f"127.0.0.1 {port} socket hello".encode()
