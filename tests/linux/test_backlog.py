"""Depths of the kernel's accept queues."""

import os
import socket

import pytest

from preforkd.linux import backlog

_HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@pytest.fixture(params=["tcp", "tcp6", "unix"])
def listener(request, tmp_path):
    """A listening socket of each family, and how to connect to it."""
    family = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[request.param]
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(str(tmp_path / "s") if family == socket.AF_UNIX else (_HOSTS[family], 0))
        except OSError as error:
            pytest.skip(f"{request.param}: {error}")
        sock.listen(16)
        yield sock


def test_connections_that_wait_are_counted(listener):
    """Each connect adds one, each accept takes one."""
    assert backlog.waiting(listener) == 0
    clients = []
    for count in range(1, 6):
        client = socket.socket(listener.family, socket.SOCK_STREAM)
        client.connect(listener.getsockname())
        clients.append(client)
        assert backlog.waiting(listener) == count
    accepted, _ = listener.accept()
    assert backlog.waiting(listener) == 4
    for sock in (accepted, *clients):
        sock.close()


def test_without_netlink_a_unix_queue_is_empty_or_not(tmp_path, monkeypatch):
    """A sandbox may forbid AF_NETLINK: then one stands for any number."""
    real = socket.socket

    def forbidden(family=-1, *arguments, **named):
        if family == socket.AF_NETLINK:
            raise PermissionError(97, "Address family not supported by protocol")
        return real(family, *arguments, **named)

    monkeypatch.setattr(backlog.socket, "socket", forbidden)
    with real(socket.AF_UNIX) as listener, real(socket.AF_UNIX) as one, real(socket.AF_UNIX) as two:
        listener.bind(str(tmp_path / "s"))
        listener.listen(8)
        assert backlog.waiting(listener) == 0
        one.connect(listener.getsockname())
        two.connect(listener.getsockname())
        assert backlog.waiting(listener) == 1


def test_what_waits_at_a_socket_is_readable():
    """Messages between workers count as well."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        assert not backlog.readable(one)
        other.send(b"x")
        assert backlog.readable(one)


def test_messages_are_counted_and_stay():
    """Messages of any length are counted up to the limit, and stay with their descriptors."""
    giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with giving, taking:
        assert backlog.queued_messages(taking, 10) == 0
        for size in (1, 70_000, 3, 200):
            socket.send_fds(giving, [b"x" * size], [giving.fileno()])
        open_files = len(os.listdir("/proc/self/fd"))
        assert [backlog.queued_messages(taking, most) for most in (10, 2, 10)] == [4, 2, 4]
        assert len(os.listdir("/proc/self/fd")) == open_files
        for size in (1, 70_000, 3):
            data, descriptors, _, _ = socket.recv_fds(taking, 100_000, 2)
            assert len(data) == size
            assert len(descriptors) == 1
            os.close(descriptors[0])
        assert backlog.queued_messages(taking, 10) == 1
        giving.close()
        assert backlog.queued_messages(taking, 10) == 1
