"""The handoff queue between workers."""

import os
import socket

from msgspec.structs import replace

from preforkd.ipc.handoff import HandedConnection, HandoffQueue, as_file, move, pair

HANDED = HandedConnection(
    0, False, "127.0.0.1", "7", 3, b"GET / HTTP/1.1\r\n\r\n", b"body", 4, b"rest"
)


def test_a_connection_arrives_with_its_socket():
    """The request, the buffered bytes, and the descriptor."""
    handoff = HandoffQueue(*pair())
    ours, theirs = socket.socketpair()
    assert handoff.put(HANDED, theirs.fileno(), None)
    theirs.close()
    received = handoff.get()
    assert received.connection == HANDED
    assert received.body is None
    received.sock.sendall(b"x")
    assert ours.recv(9) == b"x"
    assert handoff.get() is None
    received.sock.close()
    ours.close()
    handoff.close()
    assert handoff.descriptors() == (-1, -1)


def test_a_malformed_message_is_dropped():
    """Garbage from another worker neither ends this one nor leaves a descriptor behind."""
    giving, taking = pair()
    handoff = HandoffQueue(giving, taking)
    ours, theirs = socket.socketpair()
    before = len(os.listdir("/proc/self/fd"))
    for data in (b"\xff", b"garbage", b"\x80", b"x" * 1000):
        socket.send_fds(giving, [data], [theirs.fileno()])
        assert handoff.get() is None
    giving.send(b"without a descriptor")
    assert handoff.get() is None
    assert len(os.listdir("/proc/self/fd")) == before
    for sock in (ours, theirs):
        sock.close()
    handoff.close()


def test_an_invalid_connection_is_dropped():
    """A negative listener, and a descriptor that is no socket: as garbage."""
    giving, taking = pair()
    handoff = HandoffQueue(giving, taking)
    ours, theirs = socket.socketpair()
    before = len(os.listdir("/proc/self/fd"))
    assert handoff.put(replace(HANDED, listener=-1), theirs.fileno(), None)
    assert handoff.get() is None
    reading, writing = os.pipe()
    assert handoff.put(HANDED, reading, writing)
    os.close(reading)
    os.close(writing)
    assert handoff.get() is None
    assert len(os.listdir("/proc/self/fd")) == before
    for sock in (ours, theirs):
        sock.close()
    handoff.close()


def test_connections_are_moved_undecoded():
    """With their bodies, in order, even malformed ones; it never blocks, and leaves no descriptor open."""
    source, target = pair(), pair()
    old, new = HandoffQueue(*source), HandoffQueue(target[0], target[1])
    ours, theirs = socket.socketpair()
    body = as_file(b"body")
    before = len(os.listdir("/proc/self/fd"))
    assert move(source[1], target[0]) == (0, 0)
    assert old.put(HANDED, theirs.fileno(), body)
    source[0].send(b"without a descriptor")
    socket.send_fds(source[0], [b"garbage"], [theirs.fileno()])
    assert move(source[1], target[0]) == (2, 0)
    assert len(os.listdir("/proc/self/fd")) == before
    received = new.get()
    assert received.connection == HANDED
    assert os.pread(received.body, 9, 0) == b"body"
    received.sock.sendall(b"x")
    assert ours.recv(9) == b"x"
    received.close()
    assert new.get() is None
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(body)
    for end in (ours, theirs, old, new):
        end.close()


def test_a_connection_without_room_is_closed():
    """Its client reads end-of-file at once; connections before it stay open."""
    source, target = pair(), pair()
    target[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    old = HandoffQueue(*source)
    ends = [socket.socketpair() for _ in range(100)]
    for _, theirs in ends:
        assert old.put(HANDED, theirs.fileno(), None)
        theirs.close()
    moved, lost = move(source[1], target[0])
    assert moved > 0
    assert lost > 0
    assert moved + lost == 100
    for ours, _ in ends[moved:]:
        assert ours.recv(1) == b""
        ours.close()
    for ours, _ in ends[:moved]:
        ours.close()
    for end in (old, *target):
        end.close()
