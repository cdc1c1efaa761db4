"""The acceptor: which worker accepts a connection, and when none does."""

import errno
import fcntl
import logging
import os
import resource
import select
import signal
import socket
import threading
import time

import msgspec
import pytest

from preforkd.ipc import messages, slots
from preforkd.ipc.channel import Channel, close_all, pair
from preforkd.linux import memory
from preforkd.worker.acceptor import SHORTEST_LINGER, Acceptor, Listener
from tests.worker.serving import read_all, serving


def greet(connection, _peer):
    """Say something."""
    connection.sendall(b"hi")


def test_stream_connections_one_at_a_time():
    """Each is served and closed; the slot counts them."""
    with serving(greet, kind="stream") as worker:
        for _ in range(3):
            assert worker.ask(b"") == b"hi"
        with worker.connect() as sock:
            assert read_all(sock) == b"hi"
        assert worker.slot.read(1e18).accepted == 4


@pytest.mark.parametrize("kind", ["stream", "wsgi", "asgi"])
def test_a_loop_shows_that_it_turns_when_it_is_asked(kind):
    """However it serves, also while it is idle; unasked it writes nothing."""
    with serving(greet, kind=kind) as worker:
        assert worker.slot.liveness()[0] == 0
        for count in (1, 2):
            worker.master.send(messages.Heartbeat())
            deadline = time.monotonic() + 20
            while worker.slot.liveness()[0] != count:
                assert time.monotonic() < deadline
                time.sleep(0.001)


@pytest.mark.parametrize("kind", ["stream", "wsgi", "asgi"])
def test_a_heartbeat_finds_a_connection_that_another_was_woken_for(kind):
    """The kernel may have woken a worker that was stopped: the message has this one look again."""
    with serving(greet, kind=kind) as worker:
        rearmed = threading.Event()
        rearm = worker.acceptor.rearm
        listener = worker.listener.fileno()

        def observed(descriptor):
            rearm(descriptor)
            assert descriptor == listener
            rearmed.set()

        worker.acceptor.rearm = observed
        worker.master.send(messages.Heartbeat())
        assert rearmed.wait(20)


def test_a_retired_worker_accepts_no_more():
    """A connection that comes later waits in the kernel's queue for somebody else."""
    with serving(greet, kind="stream") as worker:
        worker.retire()
        assert worker.ended()
        with worker.connect() as sock:
            sock.setblocking(False)
            worker.listener.close()
            try:
                sock.recv(1)
            except (BlockingIOError, ConnectionResetError):
                return
            raise AssertionError("somebody answered")


def test_the_last_connection_that_it_was_woken_for():
    """A worker that is told to leave when it is woken takes that connection with it, and no other."""
    begun, may = threading.Event(), threading.Event()

    def waits(connection, _peer):
        begun.set()
        assert may.wait(20)
        connection.sendall(b"hi")

    with serving(waits, kind="stream") as worker, worker.connect() as first:
        assert begun.wait(20)
        with worker.connect() as second, worker.connect() as third:
            worker.retire()
            may.set()
            assert [read_all(sock) for sock in (first, second)] == [b"hi", b"hi"]
            assert worker.ended()
            assert worker.slot.read(1e18).accepted == 2
            taken, _ = worker.listener.accept()
            assert taken.getpeername() == third.getsockname()
            taken.close()


@pytest.mark.parametrize("kind", ["stream", "wsgi", "asgi"])
def test_sigterm_retires_a_worker_whose_wakeup_descriptor_was_replaced(kind):
    """An event loop may have its own while it runs; the worker ends nevertheless."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with serving(greet, kind=kind) as worker:
            worker.acceptor.install_signal_handler()
            signal.set_wakeup_fd(-1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert worker.ended()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_only_the_request_that_is_late_is_overdue():
    """The master's word names when the request began: one that has begun since is not cut off."""
    begun, may, told, overdue = (threading.Event() for _ in range(4))

    def waits(connection, _peer):
        begun.set()
        assert may.wait(20)
        connection.sendall(b"hi")

    with serving(waits, kind="stream") as worker:
        worker.acceptor.on_overdue = overdue.set
        worker.acceptor.on_refork = lambda _zygote, given: (close_all(given), told.set())
        worker.acceptor.refork_immediately = True
        with worker.connect() as sock:
            assert begun.wait(20)
            worker.master.send(messages.RequestTimeout(worker.slot.busy_since_ns() - 1))
            may.set()
            assert read_all(sock) == b"hi"
        worker.master.send(messages.ReforkRequest(1), (0, 0))
        assert told.wait(20)  # what was said before has been heard
        assert not overdue.is_set()
        worker.master.send(messages.RequestTimeout(worker.slot.busy_since_ns()))
        assert overdue.wait(20)


def test_exit_asks_for_the_workers_end():
    """A handler that calls sys.exit ends its worker, after its connection."""

    def leaves(connection, _peer):
        connection.sendall(b"bye")
        raise SystemExit

    with serving(leaves, kind="stream") as worker:
        assert worker.ask(b"") == b"bye"
        assert worker.ended()
        assert worker.acceptor.self_retired


def test_a_shortage_of_descriptors_pauses_and_passes():
    """EMFILE at accept: no spinning, no loss; when there is one again, the client is served."""
    with serving(greet, kind="stream") as worker:
        sock = socket.socket()
        sock.settimeout(20)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        fillers = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))
        try:
            try:
                while True:
                    fillers.append(os.dup(0))
            except OSError:
                pass
            sock.connect(worker.address)
            while worker.acceptor._resume_at is None:
                assert worker.thread.is_alive()
        finally:
            for descriptor in fillers:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert read_all(sock) == b"hi"
        sock.close()


class Refusing(socket.socket):
    """A listening socket whose next accept(2) fails with ``error``."""

    error = None

    def _accept(self):
        error, self.error = self.error, None
        if error is not None:
            raise error
        return super()._accept()


class Alone:
    """An acceptor without a loop: the test polls it."""

    def __init__(self, family=socket.AF_INET):
        self.listener = Refusing(family)
        self.listener.bind(("127.0.0.1" if family == socket.AF_INET else "::", 0))
        self.listener.listen()
        self.listener.setblocking(False)
        ours, theirs = pair()
        self.raw = ours
        self.master = Channel(ours, msgspec.msgpack.Decoder(messages.FromWorker))
        self.channel = Channel(theirs, msgspec.msgpack.Decoder(messages.ToWorker))
        shared = slots.create("test")
        self.slot, writer = slots.SlotReader(os.dup(shared)), slots.SlotWriter(shared, list)
        os.close(shared)
        self.acceptor = Acceptor([Listener("web", self.listener)], self.channel, writer)
        self.rearmed, self.retired = [], []
        self.acceptor.on_retiring = lambda: self.retired.append(self.acceptor.retiring)
        self.closing = (self.acceptor, self.master, self.channel, self.slot, writer)

    def give(self, message, descriptors=()):
        """Let the acceptor receive a message."""
        self.master.send(message, descriptors)
        return self.acceptor.poll(20)

    def connect(self):
        return socket.create_connection(self.listener.getsockname()[:2], timeout=20)

    def accept(self, **how):
        return self.acceptor.accept(self.listener.fileno(), **how)


@pytest.fixture
def alone():
    alone = Alone()
    yield alone
    for thing in alone.closing:
        thing.close()


@pytest.fixture
def pipe():
    """Two descriptors that the test gives away."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def is_open(descriptor):
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def test_the_order_to_serve(alone):
    """It sets the limit of requests; other messages are no order."""
    alone.master.send(messages.DrainNotice())
    alone.master.send(messages.Serve(3))
    assert alone.acceptor.wait_for_serve() is True
    assert alone.acceptor.drain_announced
    assert not alone.retired


@pytest.mark.parametrize("gone", [False, True])
def test_a_worker_that_is_retired_before_it_serves(alone, gone):
    """By an order, or by the end of the master."""
    if gone:
        alone.raw.close()
    else:
        alone.master.send(messages.Retire())
    assert alone.acceptor.wait_for_serve() is False
    assert alone.acceptor.master_gone is gone
    assert not alone.acceptor.self_retired
    assert alone.retired == [True]


def test_the_end_of_the_master_is_reported_once(alone):
    """The closed channel is polled no more, and connections do not linger."""
    alone.give(messages.Retire(60.0, 5.0))
    assert (alone.acceptor.linger, alone.acceptor.drain_timeout) == (60.0, 5.0)
    alone.raw.close()
    assert alone.acceptor.poll(20) == []
    assert alone.acceptor.linger == SHORTEST_LINGER
    alone.acceptor.wake()
    alone.acceptor.poll(20)
    assert not select.select([alone.acceptor.epoll], [], [], 0)[0]
    assert alone.retired == [True]


def test_connections_linger_for_a_shortest_time(alone):
    """A stop that has no time for it, too."""
    assert alone.acceptor.drain_timeout is None
    alone.give(messages.Retire(0.0))
    assert (alone.acceptor.linger, alone.acceptor.drain_timeout) == (SHORTEST_LINGER, None)


def test_a_message_that_is_malformed_is_ignored(alone, caplog):
    """It is logged, and the next one counts."""
    alone.raw.send(b"\xc1")
    alone.acceptor.poll(20)
    assert "malformed message from the master" in caplog.text
    assert caplog.records[0].name == "preforkd.worker"
    alone.give(messages.Heartbeat())
    assert alone.slot.liveness()[0] == 1


def test_memory_pressure_is_answered_between_two_requests(alone, monkeypatch, caplog):
    """Finalizers of the application run then: the slot shows it."""
    seen = []
    monkeypatch.setattr(memory, "trim", lambda: seen.append(alone.slot.busy_since_ns()))
    with caplog.at_level(logging.DEBUG, "preforkd.worker"):
        alone.give(messages.Trim())
    assert seen[0] > 0
    assert alone.slot.busy_since_ns() == 0
    assert "memory pressure" in caplog.text


def test_a_zygote_is_forked_between_two_requests(alone, pipe):
    """The newest request counts; the descriptors of one that it replaces are closed."""
    forked = []
    alone.acceptor.on_refork = lambda *given: forked.append(given)
    alone.give(messages.ReforkRequest(1), pipe)
    order, first = alone.acceptor.pending_refork
    assert order == messages.ReforkRequest(1)
    alone.give(messages.ReforkRequest(2, guarded=True), pipe)
    assert [is_open(descriptor) for descriptor in first] == [False, False]
    order, second = alone.acceptor.pending_refork
    alone.acceptor.fork_zygote()
    assert forked == [(messages.ReforkRequest(2, guarded=True), second)]
    assert alone.acceptor.pending_refork is None
    close_all(second)
    alone.give(messages.ReforkRequest(3), pipe)
    _, third = alone.acceptor.pending_refork
    alone.acceptor.close()
    assert [is_open(descriptor) for descriptor in third] == [False, False]


def test_a_request_for_a_zygote_that_is_refused_at_once(alone, pipe):
    """Where it always is; one without its two descriptors is ignored, and these are closed."""
    forked = []
    alone.acceptor.on_refork = lambda order, given: (forked.append(order.zygote), close_all(given))
    alone.acceptor.refork_immediately = True
    alone.give(messages.ReforkRequest(1), pipe)
    alone.give(messages.ReforkRequest(2), pipe[:1])
    before = len(os.listdir("/proc/self/fd"))
    alone.give(messages.DrainNotice(), pipe)
    assert forked == [1]
    assert alone.acceptor.pending_refork is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_descriptors_of_an_acceptor(alone):
    """Its epoll, listeners and two ends for wake-ups; a forked process closes all but the listeners."""
    epoll, listener, *wakes = alone.acceptor.descriptors()
    assert (epoll, listener, len(wakes)) == (
        alone.acceptor.epoll.fileno(),
        alone.listener.fileno(),
        2,
    )
    alone.acceptor.close_after_fork()
    assert alone.acceptor.descriptors() == (-1, listener, -1, -1)
    assert alone.channel.fileno() == -1
    assert is_open(listener)


def test_a_wakeup_ends_a_poll_once(alone):
    """However many there are."""
    for _ in range(100_000):
        alone.acceptor.wake()
    while select.select([alone.acceptor.epoll], [], [], 0)[0]:
        assert alone.acceptor.poll(None) == []
    assert alone.acceptor.poll(0) == []


def test_who_accepts_goes_to_the_end_of_the_queue(alone):
    """Unless it accepts more than it was woken for; what was accepted is counted."""
    alone.acceptor.rearm = alone.rearmed.append
    assert alone.accept() is None  # not enabled yet
    alone.acceptor.enable()
    with alone.connect() as first, alone.connect():
        ((descriptor, _),) = alone.acceptor.poll(20)
        assert descriptor == alone.listener.fileno()
        accepted = alone.accept()
        assert accepted.peer == first.getsockname()
        assert accepted.listener.name == "web"
        accepted.sock.close()
        assert alone.rearmed == [descriptor]
        alone.accept(rearm=False).sock.close()
        assert alone.rearmed == [descriptor]
        assert alone.accept() is None
    assert alone.slot.read(1e18).accepted == 2


def test_a_client_of_an_ipv6_listener_may_have_an_ipv4_address():
    """It is shown as such, RFC 4291, section 2.5.5.2."""
    alone = Alone(socket.AF_INET6)
    alone.acceptor.enable()
    with socket.create_connection(("127.0.0.1", alone.listener.getsockname()[1])):
        alone.acceptor.poll(20)
        accepted = alone.accept()
        assert accepted.peer[0] == "127.0.0.1"
        assert accepted.sock.family == socket.AF_INET6
        accepted.sock.close()
    for thing in alone.closing:
        thing.close()


@pytest.mark.parametrize(
    "error",
    [
        BlockingIOError(errno.EAGAIN, "x"),
        ConnectionAbortedError(errno.ECONNABORTED, "x"),
        InterruptedError(errno.EINTR, "x"),
        OSError(errno.EPROTO, "x"),
    ],
)
def test_an_accept_that_fails_for_one_connection(alone, error):
    """Another worker was faster, or the client has left: the next one is accepted."""
    alone.acceptor.enable()
    alone.listener.error = error
    with alone.connect():
        alone.acceptor.poll(20)
        assert alone.accept() is None
        assert alone.acceptor.pause_remaining() is None
        alone.accept().sock.close()


def test_an_oserror_of_a_signal_handler_is_raised(alone):
    """It is the application's, and no error of accept(2)."""
    alone.acceptor.enable()
    alone.listener.error = OSError("in a handler")
    with pytest.raises(OSError, match="in a handler"):
        alone.accept()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_pause_after_a_shortage(alone, number, monkeypatch, caplog):
    """For half a second, during which the listener is not polled; an earlier end of the poll remains."""
    now, timeouts = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Epoll:
        """Keeps the timeouts."""

        def poll(self, timeout, events):
            timeouts.append(timeout)
            return real.poll(0, events)

        def __getattr__(self, name):
            return getattr(real, name)

    alone.acceptor.enable()
    alone.listener.error = OSError(number, "a shortage")
    real, alone.acceptor.epoll = alone.acceptor.epoll, Epoll()
    with alone.connect():
        assert alone.accept() is None
        assert "accept on web: a shortage; pausing for 0.5 s" in caplog.text
        now[0] = 100.2
        for timeout in (None, 9.0, 0.1):
            assert alone.acceptor.poll(timeout) == []
        assert timeouts == pytest.approx([0.3, 0.3, 0.1])
        alone.acceptor.enable()  # has no effect during the pause
        assert alone.accept() is None
        now[0] = 100.5
        assert alone.acceptor.poll(7.0) == [(alone.listener.fileno(), select.EPOLLIN)]
        assert timeouts[-1] == 7.0
        assert alone.acceptor.pause_remaining() is None
        alone.accept().sock.close()


def test_who_retires_without_an_order(alone):
    """It is noted, once; an order that came before remains one."""
    alone.acceptor.retire()
    assert alone.acceptor.self_retired
    alone.acceptor.wake()
    alone.acceptor.poll(20)
    alone.acceptor.report_retiring()
    assert alone.retired == [True]
    other = Alone()
    other.give(messages.Retire())
    other.acceptor.retire()
    assert not other.acceptor.self_retired
    other.acceptor.enable()
    assert other.accept() is None
    for thing in other.closing:
        thing.close()


def test_sigterm_in_a_child_of_the_application_ends_that_child_only(alone):
    """It has the worker's handler until it sets its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        alone.acceptor.install_signal_handler()
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert not alone.acceptor.retiring
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.set_wakeup_fd(-1)
