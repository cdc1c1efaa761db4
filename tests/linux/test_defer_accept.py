"""TCP_DEFER_ACCEPT, as the kernel keeps it."""

import select
import socket
import time

import pytest

from preforkd.linux import defer_accept


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def connect(listener):
    return socket.create_connection(listener.getsockname(), timeout=20)


def next_accepted(listener):
    """Return the next connection and its client's address."""
    assert select.select([listener], [], [], 20)[0]
    return listener.accept()


def test_the_client_that_sends_is_accepted_before_a_silent_one(listener, monkeypatch):
    """With the bytes that it has sent; a silent one that came first is kept for the time."""
    monkeypatch.setattr(defer_accept, "_SECONDS", 60)
    assert not defer_accept.is_set(listener)
    defer_accept.change(listener, defers=True)
    assert defer_accept.is_set(listener)
    with connect(listener), connect(listener) as sending:
        assert not select.select([listener], [], [], 0)[0]
        sending.sendall(b"x")
        accepted, peer = next_accepted(listener)
        with accepted:
            assert peer == sending.getsockname()
            assert accepted.recv(10, socket.MSG_DONTWAIT) == b"x"
        assert not select.select([listener], [], [], 0)[0]


def test_a_silent_client_is_accepted_after_a_second(listener):
    """Not before, and not only when its connection has ended."""
    defer_accept.change(listener, defers=True)
    begun = time.monotonic()
    with connect(listener) as silent:
        accepted, peer = next_accepted(listener)
        with accepted:
            assert time.monotonic() - begun >= 0.9
            assert peer == silent.getsockname()


def test_a_client_that_only_leaves_is_accepted_at_once(listener, monkeypatch):
    """Its end is input as well: a health check that connects and closes does not wait."""
    monkeypatch.setattr(defer_accept, "_SECONDS", 60)
    defer_accept.change(listener, defers=True)
    connect(listener).close()
    accepted, _ = next_accepted(listener)
    with accepted:
        assert accepted.recv(1) == b""


def test_it_is_undone(listener, monkeypatch):
    """A silent client is accepted at once again."""
    monkeypatch.setattr(defer_accept, "_SECONDS", 60)
    defer_accept.change(listener, defers=True)
    defer_accept.change(listener, defers=False)
    assert not defer_accept.is_set(listener)
    with connect(listener):
        next_accepted(listener)[0].close()


def test_a_socket_without_the_option_stays_as_it_is(tmp_path):
    """A Unix socket has no handshake to wait behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        defer_accept.change(sock, defers=True)
        assert not defer_accept.is_set(sock)
