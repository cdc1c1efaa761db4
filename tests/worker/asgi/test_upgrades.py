"""Upgrades and handshakes: what is refused or ignored, and where the next request begins (RFC 9110, 7.8)."""

import socket

import pytest

from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    HANDSHAKE,
    serving_asgi,
)
from tests.worker.serving import read_all, wait_until

UPGRADE = b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: close, Upgrade\r\nUpgrade: %b\r\n"

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("protocol", [b"foo", b"h2c", b"foo, bar", b"h2c\r\nX: y"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_an_unsupported_upgrade_is_ignored(protocol, chunked, step):
    """The body belongs to the request, in whatever pieces it arrives, and is never parsed as a request."""
    body = b"Content-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED)
    if chunked:
        body = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(SMUGGLED),
            SMUGGLED,
        )
    data = UPGRADE % protocol + body
    with serving_asgi() as worker, worker.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step):
            sock.sendall(data[at : at + step])
        head, _, text = read_all(sock).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"upgrade" in head  # the application may see what was asked for
        assert text.endswith(b"/a " + SMUGGLED)
        wait_until(lambda: worker.slot.read(1e18).busy_since is None)
        assert worker.slot.read(1e18).requests == 1


def test_pipelined_requests_with_unsupported_upgrades_are_all_answered():
    """Each of many pipelined requests is answered, in their order."""
    one = b"GET /%d HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
    with serving_asgi() as worker:
        answer = worker.ask(b"".join(one % i for i in range(500)) + GET % (b"/last", CLOSE))
    paths = [part.split(b") ")[1].split(b" ")[0] for part in answer.split(b"HTTP/1.1 200 ")[1:]]
    assert paths == [*(b"/%d" % i for i in range(500)), b"/last"]


@pytest.mark.parametrize("target", [b"h:80", b"http://h/", b"/a"])
def test_connect_is_refused(target):
    """The bytes behind a CONNECT are not parsed as requests."""
    with serving_asgi() as worker:
        answer = worker.ask(b"CONNECT %b HTTP/1.1\r\nHost: h\r\n\r\n" % target + SMUGGLED)
        assert answer.startswith((b"HTTP/1.1 501 ", b"HTTP/1.1 400 "))
        assert answer.count(b"HTTP/1.1") == 1
        assert worker.slot.read(1e18).requests == 0


def test_an_upgrade_in_http_1_0_is_ignored():
    """RFC 9110, 7.8: the request is answered as a plain one."""
    with serving_asgi() as worker:
        answer = worker.ask(HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0") % b"")
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (b"GET", b"Content-Length: 5\r\n"),
        (b"GET", b"Transfer-Encoding: chunked\r\n"),
        (b"GET", b"Sec-WebSocket-Protocol: a b\r\n"),
        (b"PUT", b"Content-Length: 5\r\n"),
        (b"POST", b""),
    ],
)
def test_an_invalid_websocket_handshake_is_refused(method, fields, caplog):
    """It is answered with 400, the connection ends, and nothing is logged."""
    with serving_asgi() as worker, worker.connect() as sock:
        sock.sendall(method + (HANDSHAKE % fields)[3:])
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
        with worker.connect() as other:
            other.sendall(HANDSHAKE % b"Content-Length: 0\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 101 ")
        worker.retire()
        assert worker.ended()
    assert not caplog.records


def test_a_handshake_behind_an_unanswered_request_waits_for_the_answer():
    """The connection belongs to the first answer, and no byte of another is inserted into it."""
    with serving_asgi() as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/first", b"") + HANDSHAKE % b"")
        text = b""
        while b"HTTP/1.1 101 " not in text:
            text += sock.recv(65536) or pytest.fail(repr(text))
        first = text.partition(b"HTTP/1.1 101 ")[0]
        assert first.startswith(b"HTTP/1.1 200 ")
        assert b" /first " in first
