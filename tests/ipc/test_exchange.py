"""Connections that workers leave for each other."""

import os
import socket

from preforkd.ipc.exchange import Exchange, Gift, pair

GIFT = Gift(0, False, "127.0.0.1", "7", 3, b"GET / HTTP/1.1\r\n\r\n", b"body", 4, b"rest")


def test_a_gift_arrives_with_its_connection():
    """What was read of it, and the descriptor itself."""
    exchange = Exchange(*pair())
    ours, theirs = socket.socketpair()
    assert exchange.give(GIFT, theirs.fileno(), None)
    theirs.close()
    received = exchange.take()
    assert received.gift == GIFT
    assert received.body is None
    received.sock.sendall(b"x")
    assert ours.recv(9) == b"x"
    assert exchange.take() is None
    received.sock.close()
    ours.close()
    exchange.close()
    assert exchange.descriptors() == (-1, -1)


def test_what_is_no_gift_is_dropped():
    """Garbage from another worker neither ends this one nor leaves a descriptor behind."""
    giving, taking = pair()
    exchange = Exchange(giving, taking)
    ours, theirs = socket.socketpair()
    before = len(os.listdir("/proc/self/fd"))
    for data in (b"\xff", b"garbage", b"\x80", b"x" * 1000):
        socket.send_fds(giving, [data], [theirs.fileno()])
        assert exchange.take() is None
    giving.send(b"without a descriptor")
    assert exchange.take() is None
    assert len(os.listdir("/proc/self/fd")) == before
    for sock in (ours, theirs):
        sock.close()
    exchange.close()
