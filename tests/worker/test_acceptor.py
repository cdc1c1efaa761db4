"""The acceptor: which worker accepts a connection, and when none does."""

import os
import resource
import signal
import socket
import threading
import time

import pytest

from preforkd.ipc import messages
from preforkd.ipc.channel import close_all
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
