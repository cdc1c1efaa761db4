"""Channels between the master and its children."""

import os
import socket

import msgspec
import pytest

from preforkd.ipc import messages, scm_rights
from preforkd.ipc.channel import (
    Channel,
    ChannelClosedError,
    MalformedMessageError,
    UnwantedDescriptorsError,
    close_all,
    pair,
)


@pytest.fixture
def ends():
    """The master's channel, and the child's as a bare socket."""
    ours, theirs = pair()
    channel = Channel(ours, msgspec.msgpack.Decoder(messages.FromWorker))
    yield channel, theirs
    channel.close()
    theirs.close()


def test_a_message_arrives_with_its_sender_and_its_descriptors(ends):
    """The kernel adds the pid; a descriptor arrives as one of our own, close-on-exec."""
    channel, theirs = ends
    child: Channel[messages.ToWorker] = Channel(theirs, msgspec.msgpack.Decoder(messages.ToWorker))
    reader, writer = os.pipe()
    child.send(messages.Leaving("idle"), (writer,))
    os.close(writer)
    received = channel.receive(wait=False)
    assert received.message == messages.Leaving("idle")
    assert received.pid == os.getpid()
    (descriptor,) = received.descriptors
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, b"x")
    assert os.read(reader, 1) == b"x"
    close_all((reader, descriptor))


def test_nothing_there_is_none_and_the_end_is_an_error(ends):
    """Without ``wait``, receive returns None; end-of-file is an error."""
    channel, theirs = ends
    assert channel.receive(wait=False) is None
    theirs.close()
    with pytest.raises(ChannelClosedError):
        channel.receive(wait=False)
    with pytest.raises(ChannelClosedError):
        channel.send(messages.Serve())


NO_TEXT = b"\x82\xa4type\xa7leaving\xa6reason\xa2\xff\xfe"


@pytest.mark.parametrize(
    "data", [b"\xc1", b"\x81\xa4type\xa5never", b"x" * 1000, b"\x91" * 5000, NO_TEXT]
)
def test_a_malformed_message_is_refused_and_the_channel_stays_usable(ends, data):
    """It raises MalformedMessageError, and its descriptors are closed."""
    channel, theirs = ends
    reader, writer = os.pipe()
    socket.send_fds(theirs, [data], [writer])
    os.close(writer)
    with pytest.raises(MalformedMessageError):
        channel.receive(wait=False)
    assert os.read(reader, 1) == b""  # no copy of the other end is left
    os.close(reader)
    theirs.send(msgspec.msgpack.encode(messages.Ready()))
    assert channel.receive(wait=False).message == messages.Ready()


def test_a_message_that_is_too_long_is_refused(ends):
    """A truncated datagram is not decoded."""
    channel, theirs = ends
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    theirs.send(b"\x00" * (300 * 1024))
    with pytest.raises(MalformedMessageError, match="too long"):
        channel.receive(wait=False)


def test_a_master_does_not_wait_for_a_child_that_does_not_read(ends):
    """A full channel is an error at once."""
    channel, _ = ends

    def fill():
        while True:
            channel.send(messages.Serve())

    with pytest.raises(BlockingIOError):
        fill()


def test_descriptors_where_none_are_due_are_refused_by_the_kernel():
    """Linux 6.16: the sender gets EPERM; a message without descriptors arrives."""
    ours, theirs = pair()
    channel = Channel(ours, msgspec.msgpack.Decoder(messages.FromWorker), takes_descriptors=False)
    child: Channel[messages.ToWorker] = Channel(theirs, msgspec.msgpack.Decoder(messages.ToWorker))
    if not scm_rights.refuse(ours):
        pytest.skip("this kernel cannot refuse descriptors")
    with pytest.raises(PermissionError):
        child.send(messages.Ready(), (0,))
    child.send(messages.Ready())
    assert channel.receive(wait=False).message == messages.Ready()
    channel.close()
    child.close()


def test_descriptors_that_the_kernel_lets_pass_are_not_received(monkeypatch):
    """The reader gets UnwantedDescriptorsError, and the socket is closed in a thread."""
    monkeypatch.setattr(scm_rights, "refuse", lambda sock: False)
    closed = []
    monkeypatch.setattr(scm_rights, "close_in_thread", closed.append)
    ours, theirs = pair()
    channel = Channel(ours, msgspec.msgpack.Decoder(messages.FromWorker), takes_descriptors=False)
    child: Channel[messages.ToWorker] = Channel(theirs, msgspec.msgpack.Decoder(messages.ToWorker))
    assert channel.receive(wait=False) is None
    child.send(messages.Ready())
    child.send(messages.Leaving("idle"), (0,))
    assert channel.receive(wait=False).message == messages.Ready()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with pytest.raises(UnwantedDescriptorsError):
            channel.receive(wait=False)
    assert len(os.listdir("/proc/self/fd")) == before
    channel.close()
    with pytest.raises(ChannelClosedError):
        child.receive(wait=False)
    (close,) = closed
    close()
    channel.close()
    assert len(closed) == 1
    child.close()
