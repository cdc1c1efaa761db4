"""The timeout for sending, with a clock of the test and real sockets."""

import socket

import pytest

from preforkd.config.settings import HttpSettings
from preforkd.worker.asgi.send_timeout import SendTimeout


class Transport:
    """A transport whose buffer is a number."""

    def __init__(self, sock) -> None:
        self.sock = sock
        self.buffered = 0
        self.aborted = False

    def get_extra_info(self, name):
        return self.sock

    def get_write_buffer_size(self):
        return self.buffered

    def abort(self):
        self.aborted = True


class Clock:
    """Keeps the callbacks of call_later until the test runs the next."""

    def __init__(self) -> None:
        self.calls = []

    def call_later(self, seconds, call):
        handle = Handle(self, call)
        self.calls.append((seconds, handle))
        return handle

    def step(self):
        _, handle = self.calls.pop(0)
        handle.call()


class Handle:
    def __init__(self, clock, call) -> None:
        self.clock, self.call = clock, call

    def cancel(self):
        self.clock.calls = [one for one in self.clock.calls if one[1] is not self]


@pytest.fixture(params=["tcp", "unix"])
def ends(request):
    if request.param == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname(), timeout=20)
            ours = listener.accept()[0]
    with ours, theirs:
        yield ours, theirs


def watched(sock, *, always=False, buffered=1000, least=256):
    clock, transport = Clock(), Transport(sock)
    transport.buffered = buffered
    limits = HttpSettings(body_timeout=2.0, min_rate=least)
    timeout = SendTimeout(clock, transport, limits, always=always)
    timeout.watch()
    return clock, transport, timeout


def test_a_client_that_takes_nothing_is_aborted(ends):
    clock, transport, _ = watched(ends[0])
    assert clock.calls[0][0] == 2.0
    clock.step()
    assert transport.aborted
    assert not clock.calls


def test_a_client_that_takes_enough_stays(ends):
    """The kernel has what it acknowledged or, of a Unix socket, the buffers shrink."""
    ours, theirs = ends
    clock, transport, _ = watched(ours, least=1)
    ours.sendall(b"x" * 100)
    assert theirs.recv(100)
    transport.buffered -= 100
    clock.step()
    assert not transport.aborted
    assert len(clock.calls) == 1
    clock.step()
    assert transport.aborted  # nothing was taken since


@pytest.mark.parametrize(
    ("taken", "buffered", "least", "enough"),
    [(100, 1000, 50, True), (99, 1000, 50, False), (1, 1, 50, True), (1, 1000, 0, True)],
)
def test_what_the_client_must_take_of_a_tcp_connection(taken, buffered, least, enough):
    """The least rate, or all that is unsent; a buffer that shrinks into the kernel's is not enough."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=20)
        ours = listener.accept()[0]
    with ours, theirs:
        clock, transport, _ = watched(ours, buffered=buffered, least=least)
        ours.sendall(b"x" * taken)
        assert theirs.recv(taken, socket.MSG_WAITALL)
        transport.buffered += 1
        clock.step()
        assert transport.aborted is not enough


def test_without_unsent_output_no_timer_runs(ends):
    clock, transport, timeout = watched(ends[0], buffered=0)
    assert not clock.calls
    transport.buffered = 5
    timeout.watch()
    timeout.watch()
    assert len(clock.calls) == 1
    transport.buffered = 0
    clock.step()
    assert not transport.aborted
    assert not clock.calls


def test_always_looks_again_without_a_call(ends):
    """For output that is not followed by a call: the frames of a WebSocket."""
    clock, transport, _ = watched(ends[0], always=True, buffered=0)
    clock.step()
    transport.buffered = 5
    clock.step()  # unsent output is seen
    assert not transport.aborted
    clock.step()
    assert transport.aborted


def test_a_lost_connection_is_not_watched(ends):
    clock, _, timeout = watched(ends[0])
    timeout.stop()
    assert not clock.calls
    timeout.watch()
    assert not clock.calls
    clock, transport, timeout = watched(ends[0], buffered=0)
    timeout.stop()
    transport.buffered = 5
    timeout.watch()
    assert not clock.calls
