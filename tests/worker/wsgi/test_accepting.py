"""How connections of the WSGI server begin: TLS, the PROXY protocol, forwarded headers, probes."""

import contextlib
import os
import socket
import struct
import threading
import time

import pytest

from preforkd.config.settings import (
    HttpSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from preforkd.ipc import messages
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.http_settings import (
    CLOSE,
    GET,
    PROXIED,
    SECURE,
    client_context,
    closed_without_answer,
    connect_tls,
    listener_settings,
    show_client,
)
from tests.worker.serving import read_all, read_answer, serving


def test_tls():
    """Requests, kept connections and large bodies both ways; ALPN selects http/1.1."""
    size = 3_000_000

    def large(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("X-Scheme", environ["wsgi.url_scheme"])])
        return [body]

    with serving(large, whole=SECURE) as worker, connect_tls(worker) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
        for _ in range(3):
            sock.sendall(GET % (b"/", b""))
            assert "X-Scheme: https" in read_answer(sock)[0]
        data = os.urandom(size)
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + data)
        assert read_answer(sock)[1] == data
        sock.sendall(GET % (b"/", b"") * 40)  # in one record, pipelined
        answers = b""
        while answers.count(b"X-Scheme: https") < 40 or not answers.endswith(b"\r\n\r\n"):
            answers += sock.recv(65536)
        sock.sendall(GET % (b"/", CLOSE))
        assert b"200 OK" in read_all(sock)  # and a clean end: no SSLEOFError


def test_a_stalled_handshake_delays_no_other_connection():
    """Clients that send nothing, half a handshake, or invalid bytes: others are served at once."""
    with serving(show_client, whole=SECURE) as worker:
        silent = [worker.connect() for _ in range(20)]
        silent[3].sendall(b"\x16\x03\x01")
        silent[4].sendall(GET % (b"/", b""))
        with connect_tls(worker) as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert b"200 OK" in read_all(sock)
        for sock in silent:
            sock.close()


@pytest.mark.parametrize("proxied", [False, True])
def test_resets_before_the_handshake_end_their_connection_only(proxied, caplog):
    """With TLS and behind the PROXY protocol: connections that were reset in the backlog."""
    held, go = threading.Event(), threading.Event()

    def hold(environ, start_response):
        if environ["PATH_INFO"] == "/hold":
            held.set()
            assert go.wait(20)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    tls = TlsSettings(certificate=CERTIFICATE, key=KEY)
    trusted = ProxySettings(trusted=("127.0.0.1",))
    settings = listener_settings(tls=True, tls_section=tls, proxy_protocol=proxied, proxy=trusted)
    handshake = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n" if proxied else b""

    def enter(worker):
        plain = worker.connect()
        plain.sendall(handshake)
        return client_context().wrap_socket(plain, server_hostname="localhost")

    with serving(hold, whole=settings) as worker, enter(worker) as sock:
        sock.sendall(GET % (b"/hold", CLOSE))
        assert held.wait(20)
        for number in range(30):
            gone = worker.connect()
            gone.sendall(handshake + b"\x16\x03\x01"[: number % 4])
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
        go.set()
        assert b"200 OK" in read_all(sock)
        with enter(worker) as other:
            other.sendall(GET % (b"/", CLOSE))
            assert b"200 OK" in read_all(other)
        deadline = time.monotonic() + 20
        while worker.slot.liveness()[1]:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_the_proxy_protocol():
    """The client is the one that the header names, sent together with the request or before it."""
    with serving(show_client, whole=PROXIED) as worker:
        header = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n"
        assert b"http 1.2.3.4 1000 /x" in worker.ask(header + GET % (b"/x", CLOSE))
        with worker.connect() as sock:
            sock.sendall(header[:10])
            assert b"http 127.0.0.1 " in worker.ask(b"PROXY UNKNOWN\r\n" + GET % (b"/", CLOSE))
            sock.sendall(header[10:])
            sock.sendall(GET % (b"/y", CLOSE))
            assert b"http 1.2.3.4 1000 /y" in read_all(sock)
        assert closed_without_answer(worker, GET % (b"/", CLOSE))


def test_the_proxy_protocol_before_tls():
    """The header precedes the TLS handshake, as load balancers send it."""
    settings = listener_settings(
        tls=True,
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
        proxy_protocol=True,
        proxy=ProxySettings(trusted=("127.0.0.1",)),
    )
    with serving(show_client, whole=settings) as worker, worker.connect() as plain:
        plain.sendall(b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n")
        with client_context().wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert b"https 1.2.3.4 1000 /" in read_all(sock)


def test_a_proxy_header_of_an_untrusted_peer_is_refused(caplog):
    """The connection is closed, and that is logged."""
    settings = listener_settings(proxy_protocol=True, proxy=ProxySettings(trusted=("10.0.0.1",)))
    with serving(show_client, whole=settings) as worker:
        assert closed_without_answer(
            worker, b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n" + GET % (b"/", CLOSE)
        )
    assert "not in proxy.trusted" in caplog.text


@pytest.mark.parametrize(
    ("trusted", "client"), [("127.0.0.0/8", b"1.2.3.4"), ("10.0.0.1", b"127.0.0.1")]
)
def test_forwarded_headers_count_from_trusted_peers_only(trusted, client):
    """From any other peer the application gets the address of the connection."""
    proxy = ProxySettings(trusted=(trusted,), headers="x-forwarded")
    with serving(show_client, whole=listener_settings(proxy=proxy)) as worker:
        for _ in range(3):
            answer = worker.ask(GET % (b"/", b"X-Forwarded-For: 1.2.3.4\r\n" + CLOSE))
            assert b"http %b " % client in answer


def test_probes():
    """Probes are answered without the application; readiness is 503 while a drain is announced."""

    def never(environ, start_response):
        raise AssertionError

    http = HttpSettings(healthy="/-/healthy", ready="/-/ready")
    with serving(never, whole=Settings(http=http)) as worker, worker.connect() as sock:
        for path in (b"/-/healthy", b"/-/ready", b"/-/ready?x=1"):
            for _ in range(3):
                sock.sendall(GET % (path, b""))
                head, body = read_answer(sock)
                assert " 200 " in head
                assert body == b"ok\n"
        worker.master.send(messages.DrainNotice())
        while " 200 " in head:
            sock.sendall(GET % (b"/-/ready", b""))
            head, body = read_answer(sock)
        assert " 503 " in head
        sock.sendall(GET % (b"/-/healthy", b""))
        assert " 200 " in read_answer(sock)[0]
        assert worker.ask(b"HEAD" + (GET % (b"/-/ready", CLOSE))[3:]).endswith(b"\r\n\r\n")


def test_no_server_header_when_http_server_is_empty():
    """No answer has a Server header."""
    with serving(show_client, server="") as worker:
        assert b"Server" not in worker.ask(GET % (b"/", CLOSE))
        assert b"Server" not in worker.ask(b"NONSENSE\r\n\r\n")


def test_options_asterisk():
    """OPTIONS * reaches the application, with an empty path."""
    with serving(show_client) as worker:
        assert b"200 OK" in worker.ask(
            b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )


@pytest.mark.parametrize(("ends", "moves"), [(True, 3), (False, 33)])
def test_a_worker_keeps_its_place_for_connections_that_end_at_once(ends, moves):
    """For 16 in a row; for one that stays it moves to the end of the kernel's wait queue at once."""
    held, go = threading.Event(), threading.Event()

    def hold(environ, start_response):
        held.set()
        assert go.wait(20)
        return show_client(environ, start_response)

    with serving(hold) as worker, contextlib.ExitStack() as clients:
        rearm, moved = worker.acceptor.rearm, []
        worker.acceptor.rearm = lambda descriptor: moved.append(descriptor) or rearm(descriptor)
        socks = []
        for number in range(33):
            sock = clients.enter_context(worker.connect())
            sock.sendall(GET % (b"/", CLOSE if ends and number else b""))
            assert held.wait(
                20
            )  # the first one, which stays; the others arrive with their requests
            socks.append(sock)
        go.set()
        for sock in socks:
            assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")
    assert len(moved) == moves
