"""Notifications to the service manager."""

import os
import socket
import threading

import pytest

from preforkd.linux.sd_notify import Notifier


@pytest.fixture
def manager(tmp_path):
    """A socket in the manager's place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def notifier(manager, **environ):
    """Return a notifier for this manager."""
    return Notifier.from_environment({"NOTIFY_SOCKET": manager.getsockname(), **environ})


def test_each_message_is_one_datagram(manager):
    """READY and RELOADING carry the status along; lines do not break the protocol."""
    said = notifier(manager)
    assert said.active
    said.ready("two\nlines")
    assert manager.recv(999) == b"READY=1\nSTATUS=two lines"
    said.reloading("x")
    first, second, third = manager.recv(999).decode().split("\n")
    assert (first, third) == ("RELOADING=1", "STATUS=x")
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
    said.stopping("y")
    assert manager.recv(999) == b"STOPPING=1\nSTATUS=y"
    said.extend_timeout(1.5)
    assert manager.recv(999) == b"EXTEND_TIMEOUT_USEC=1500000"
    said.close()
    assert not said.active


def test_without_a_manager_nothing_happens():
    """No NOTIFY_SOCKET, or one of a kind that we do not speak."""
    for environ in ({}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        silent = Notifier.from_environment(environ)
        assert not silent.active
        silent.ready("x")
        assert silent.status("x")


def test_an_abstract_socket(tmp_path):
    """A name that begins with @."""
    name = f"preforkd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        said = Notifier.from_environment({"NOTIFY_SOCKET": "@" + name})
        said.watchdog()
        assert sock.recv(99) == b"WATCHDOG=1"
        said.close()


def test_a_manager_that_does_not_read_is_not_waited_for(manager):
    """A status for which there is no room is given up at once, and the caller knows."""
    said = notifier(manager)
    assert not all(said.status("x" * 1000) for _ in range(1000))
    said.close()


def test_the_watchdogs_interval_is_for_the_process_that_it_names(manager):
    """WATCHDOG_PID may name another process."""
    mine = {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    for environ, interval in (
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        (mine, 3.0),
        ({**mine, "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({}, None),
    ):
        said = notifier(manager, **environ)
        assert said.watchdog_interval == interval
        said.close()


def test_a_long_status_is_cut(manager):
    """systemd drops what is longer than 4096 bytes; half a character is no UTF-8."""
    said = notifier(manager)
    said.ready("ä" * 5000)
    data = manager.recv(65536)
    assert len(data) < 1100
    assert data.decode().endswith("ä…")
    said.close()


def test_sockets_are_stored_and_forgotten(manager):
    """With name and descriptor, never polled; a barrier waits until it was read."""
    said = notifier(manager)
    reader, writer = os.pipe()
    said.store("x", [writer])
    data, (copy,), _, _ = socket.recv_fds(manager, 999, 2)
    assert data == b"FDSTORE=1\nFDNAME=x\nFDPOLL=0"
    os.write(copy, b"y")
    assert os.read(reader, 1) == b"y"
    for descriptor in (reader, writer, copy):
        os.close(descriptor)
    said.forget("x")
    assert manager.recv(999) == b"FDSTOREREMOVE=1\nFDNAME=x"
    thread = threading.Thread(target=said.barrier)
    thread.start()
    data, (barrier,), _, _ = socket.recv_fds(manager, 999, 2)
    assert data == b"BARRIER=1"
    assert thread.is_alive()
    os.close(barrier)
    thread.join(0.9)
    assert not thread.is_alive()
    said.close()
