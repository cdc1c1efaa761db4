"""Handles of the master's children, and what a generation is started with."""

import os
import socket

import pytest

from preforkd.config.settings import AppSettings, Settings
from preforkd.ipc import messages
from preforkd.ipc.channel import ChannelClosedError
from preforkd.ipc.handoff import HandedConnection, HandoffQueue, pair
from preforkd.linux import process
from preforkd.supervisor import children
from preforkd.supervisor.children import Launch

HANDED = HandedConnection(0, False, "127.0.0.1", "7", 3, b"GET / HTTP/1.1\r\n\r\n", b"", 0, b"")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def launches(listener):
    """Two generations that listen on the same socket, each with a handoff queue of its own."""
    made = [Launch(number, Settings(), (("http", listener),), {}, pair()) for number in (1, 2)]
    yield made
    for launch in made:
        launch.close()


def leave(launch):
    """Leave a connection between the workers of a generation; return the client's end."""
    client, server = socket.socketpair()
    assert HandoffQueue(*launch.handoff).put(HANDED, server.fileno(), None)
    server.close()
    return client


def test_who_waits_is_counted_in_the_kernel_and_between_workers(launches, listener):
    """Connections in the backlog, and those in the handoff."""
    first, _ = launches
    assert first.waiting() == 0
    with socket.create_connection(listener.getsockname()), leave(first):
        assert first.waiting() == 2


def test_what_waits_between_workers_goes_to_the_next_generation(launches):
    """The successor answers the client; without one the connection is closed."""
    first, second = launches
    client = leave(first)
    assert first.hand_over(second) == (1, 0)
    assert first.waiting() == 0
    received = HandoffQueue(*second.handoff).get()
    received.sock.sendall(b"x")
    assert client.recv(1) == b"x"
    received.close()
    client.close()
    with leave(first) as client:
        assert first.hand_over(None) == first.hand_over(first) == (0, 0)
        first.close()
        assert client.recv(1) == b""


def test_nothing_is_handed_to_a_generation_with_other_sockets(launches, listener):
    """A connection belongs to the listener that it came by."""
    first, second = launches
    other = Launch(3, Settings(), (("admin", listener),), {}, second.handoff)
    with leave(first):
        assert first.hand_over(other) == (0, 0)
        assert first.waiting() == 1


@pytest.mark.process
def test_an_interpreter_that_is_not_there_leaves_nothing_behind():
    """The error is the system's own, and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        children.execute_zygote("/no/such/python", dict(os.environ))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.process
def test_a_zygote_is_asked_for_workers_by_its_channel(listener):
    """A handle knows its process by pidfd; one that has gone cannot be asked, and nothing is left open."""
    launch = Launch(1, Settings(), (("http", listener),), dict(os.environ))
    handle = children.new_zygote(4, launch)
    try:
        assert (handle.zygote, handle.generation, handle.name) == (4, 1, "zygote 4")
        process.send_signal(handle.pidfd, 9)
        os.waitid(os.P_PIDFD, handle.pidfd, os.WEXITED)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ChannelClosedError):
            children.new_worker(1, 1, 1, handle)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        handle.channel.close()
        os.close(handle.pidfd)


def test_a_worker_is_asked_for_a_zygote_over_its_channel():
    """It is sent the number, the channel and the memory of the zygote to fork."""
    from tests.supervisor.test_refork import Scene

    scene = Scene()
    channel, slot_memory = children.request_zygote(9, scene.handle, guarded=True)
    received = scene.worker.receive(wait=True)
    assert received.message == messages.ReforkRequest(9, guarded=True)
    assert len(received.descriptors) == 2
    scene.channels += received.descriptors
    channel.close()
    slot_memory.close()
    scene.close()


def test_what_a_directory_is_relative_to():
    """Where preforkd was started: as it is there now, unless it cannot be entered."""
    whole = Settings(app=AppSettings(directory="site", python=".venv/bin/python"))
    app = children.with_absolute_paths(whole, "/srv/current").app
    assert (app.directory, app.python) == ("/srv/current/site", "/srv/current/.venv/bin/python")
    for written in ("", "."):
        assert (
            children.with_absolute_paths(
                Settings(app=AppSettings(directory=written)), "/srv"
            ).app.directory
            == "/srv"
        )
    absolute = Settings(app=AppSettings(directory="/a", python="/b"))
    assert children.with_absolute_paths(absolute, "/srv") == absolute
    assert children.with_absolute_paths(whole, "") == whole
