"""What an application, a log and a proxy's trust learn of the addresses at both ends."""

import json
import re
import socket
import socketserver

import pytest

from preforkd.config.address import as_ipv4
from preforkd.config.settings import AccessLogSettings, ProxySettings, Settings
from tests.worker.serving import read_all, serving

HOSTS = pytest.mark.parametrize(
    ("host", "server"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")]
)


def dual_stack():
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    return socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)


def ask(worker, host, data):
    with socket.create_connection((host, worker.address[1]), timeout=20) as sock:
        sock.sendall(data)
        return read_all(sock)


def shown(environ, start_response):
    names = ("REMOTE_ADDR", "SERVER_NAME", "SERVER_PORT", "wsgi.url_scheme")
    start_response("200 OK", [])
    return [json.dumps([environ[name] for name in names]).encode()]


@HOSTS
@pytest.mark.parametrize("http", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\nHost: h\r\n\r\n"])
def test_wsgi_on_a_listener_for_both_families(host, server, http, tmp_path):
    """IPv4 is written as such, SERVER_NAME is what the client has connected to, the log says the same."""
    log = AccessLogSettings(target=str(tmp_path / "log"), format="json")
    with serving(shown, access=log, listener=dual_stack()) as worker:
        for _ in range(3):  # the head is remembered, who sends it is not
            found = json.loads(ask(worker, host, http).partition(b"\r\n\r\n")[2])
            client = "::1" if ":" in host else "127.0.0.1"
            assert found == [client, server, str(worker.address[1]), "http"]
        ask(worker, "127.0.0.1", http)
    remotes = [json.loads(line)["remote"] for line in (tmp_path / "log").read_text().splitlines()]
    assert remotes == [client] * 3 + ["127.0.0.1"]


def test_django_accepts_a_health_check_without_a_host():
    """Its get_host() refuses a name that no client could have used, as "::" is."""
    pytest.importorskip("django")
    from django.http.request import host_validation_re

    with serving(shown, listener=dual_stack()) as worker:
        for host in ("127.0.0.1", "::1"):
            answer = ask(worker, host, b"GET / HTTP/1.0\r\n\r\n")
            _, name, port, _ = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert host_validation_re.fullmatch(f"{name}:{port}")


def test_a_listener_for_one_ipv6_address():
    """SERVER_NAME stands in brackets, as in a URL."""
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with serving(shown, listener=listener) as worker:
        answer = ask(worker, "::1", b"GET / HTTP/1.0\r\n\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])[:2] == ["::1", "[::1]"]


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("trusted", ["127.0.0.1", "::ffff:127.0.0.0/104"])
def test_a_trusted_proxy_on_a_listener_for_both_families(kind, trusted):
    """It is trusted by its IPv4 address, and what it says of clients is written as such."""
    settings = Settings(proxy=ProxySettings(trusted=(trusted,), headers="x-forwarded"))
    application = shown if kind == "wsgi" else shown_by_asgi
    with serving(application, kind=kind, whole=settings, listener=dual_stack()) as worker:
        fields = b"Host: h\r\nX-Forwarded-For: ::ffff:9.9.9.9\r\n"
        answer = ask(worker, "127.0.0.1", b"GET / HTTP/1.0\r\n" + fields + b"\r\n")
        assert b'"9.9.9.9"' in answer


async def shown_by_asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError  # it has none
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
    text = json.dumps([scope["client"][0], scope["server"]]).encode()
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    await send({"type": f"{kind}.start", "status": 200, "headers": []})
    await send({"type": f"{kind}.body", "body": text})


SHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@HOSTS
def test_asgi_on_a_listener_for_both_families(host, server):
    """The scope's client and server are IPv4 addresses where the client's is one."""
    with serving(shown_by_asgi, kind="asgi", listener=dual_stack()) as worker:
        answer = ask(worker, host, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        text = re.search(rb"\[.*\]", answer.partition(b"\r\n\r\n")[2])[0]
        client = "::1" if ":" in host else "127.0.0.1"
        assert json.loads(text) == [client, [host, worker.address[1]]]


def test_asgi_websockets_on_a_listener_for_both_families():
    """Theirs as well."""
    pytest.importorskip("websockets")
    seen = []

    async def talk(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError  # it has none
        seen.append((scope["client"][0], scope["server"]))
        await receive()
        await send({"type": "websocket.close"})

    with serving(talk, kind="asgi", listener=dual_stack()) as worker:
        assert b" 403 " in ask(worker, "127.0.0.1", SHAKE)
        assert seen == [("127.0.0.1", ("127.0.0.1", worker.address[1]))]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_streams_on_a_listener_for_both_families(host):
    """The peer is what a listener of its family would have told."""

    def handle(connection, peer):
        connection.sendall(json.dumps([peer[0], len(peer)]).encode())

    with serving(handle, kind="stream", listener=dual_stack()) as worker:
        assert json.loads(ask(worker, host, b"")) == [host, 4 if ":" in host else 2]


def test_a_handler_of_socketserver_on_a_listener_for_both_families():
    """Both addresses that it may ask for are IPv4 addresses."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            said = [self.client_address[0], self.server.server_address[0]]
            self.request.sendall(json.dumps(said).encode())

    with serving(Handler, kind="stream", listener=dual_stack()) as worker:
        assert json.loads(ask(worker, "127.0.0.1", b"")) == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        (("::ffff:1.2.3.4", 5, 0, 0), ("1.2.3.4", 5)),
        (("::1", 5, 0, 0), ("::1", 5, 0, 0)),
        (("::ffff:0:1.2.3.4", 5, 0, 0), ("::ffff:0:1.2.3.4", 5, 0, 0)),
        (("fe80::1%lo", 5, 0, 1), ("fe80::1%lo", 5, 0, 1)),
        (("1.2.3.4", 5), ("1.2.3.4", 5)),
    ],
)
def test_only_what_is_mapped_becomes_ipv4(address, plain):
    """Other addresses with IPv4 in them stay what they are."""
    assert as_ipv4(address) == plain
