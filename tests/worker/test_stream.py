"""The stream worker: one connection at a time, from accept to close."""

import socket
import socketserver
import threading
import time
from types import SimpleNamespace

import pytest

from preforkd.worker import stream
from preforkd.worker.acceptor import Accepted
from tests.worker.serving import read_all, serving


def test_a_handler_that_fails_costs_its_connection_only(caplog):
    """Its traceback is logged, the next client is served, and the slot counts both."""

    def handle(connection, _peer):
        if connection.recv(1) == b"x":
            raise RuntimeError("a broken handler")
        connection.sendall(b"fine")

    with serving(handle, kind="stream") as worker:
        assert worker.ask(b"x") == b""
        assert worker.ask(b"y") == b"fine"
        worker.retire()
        assert worker.ended()
        assert worker.slot.read(1e18).requests == 2
        assert worker.slot.read(1e18).busy_since is None
    assert "a broken handler" in caplog.text


def test_a_handler_of_socketserver_serves():
    """A BaseRequestHandler subclass is as good as a function."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline().upper())

    with serving(Handler, kind="stream") as worker:
        assert worker.ask(b"hello\n") == b"HELLO\n"


def test_it_leaves_after_the_connection_that_it_has():
    """Told while it serves: that client is served to the end."""

    def handle(connection, _peer):
        worker.retire()
        connection.sendall(b"to the end")

    with serving(handle, kind="stream") as worker:
        assert worker.ask(b"") == b"to the end"
        assert worker.ended()
        assert worker.slot.read(1e18).requests == 1


def greet(connection, _peer):
    """Say a word."""
    connection.sendall(b"hello")


def test_what_waits_is_served_and_counted():
    """Of many that came at once each is greeted once, those taken without a wake-up of their own as well."""
    with serving(greet, kind="stream") as worker:
        for _ in range(4):
            socks = [worker.connect() for _ in range(40)]
            for sock in socks:
                with sock:
                    assert read_all(sock) == b"hello"
        worker.retire()
        assert worker.ended()
        reading = worker.slot.read(1e18)
        assert (reading.requests, reading.accepted, reading.busy_since) == (160, 160, None)


def test_a_worker_leaves_though_others_wait():
    """Told to leave while it serves, it leaves when it has, whoever waits: others take them."""
    entered, go_on = threading.Event(), threading.Event()
    served = []

    def slow(connection, _peer):
        served.append(connection)
        if len(served) > 20:
            entered.set()
            go_on.wait(30)
            time.sleep(0.01)  # for longer than connections are taken unseen
        connection.sendall(b"hello")

    with serving(slow, kind="stream") as worker:
        socks = [worker.connect() for _ in range(40)]
        assert entered.wait(30)
        worker.retire()
        go_on.set()
        assert worker.ended()
        assert len(served) < 40
        for sock in socks:
            sock.close()


class FakeAcceptor:
    """Connections that wait, on a clock that goes on by ``step`` for each that is served."""

    def __init__(self, monkeypatch, *, step=0.0):
        self.waiting, self.retiring, self.pending_refork = 0, False, None
        self.calls, self.now = [], 100.0
        self.served = 0
        self.slot_writer = SimpleNamespace(set_busy=lambda: None, request_done=self.done)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.step = step

    def enable(self):
        self.calls.append("enable")

    def done(self):
        self.served += 1
        self.now += self.step

    def poll(self, timeout):
        assert timeout is None
        self.calls.append("poll")
        self.retiring = not self.waiting
        return [(7, 1)] if self.waiting else []

    def accept(self, descriptor, *, rearm=True):
        assert descriptor == 7
        self.calls.append("accept" if rearm else "accept more")
        if not self.waiting:
            return None
        self.waiting -= 1
        return Accepted(socket.socket(), ("1.2.3.4", 5), None)

    def rearm(self, descriptor):
        assert descriptor == 7
        self.calls.append("rearm")

    def fork_zygote(self):
        self.calls.append(f"fork {self.pending_refork}")
        self.pending_refork = None

    def serve(self, waiting):
        """Return the calls with which so many connections are served."""
        self.waiting, self.calls = waiting, []
        stream.serve(self, lambda connection, _peer: connection.close())
        return self.calls


def test_connections_that_wait_are_accepted_without_a_poll(monkeypatch):
    """From the sixteenth on; who has served more than its wake-up goes to the end of the queue."""
    calls = FakeAcceptor(monkeypatch).serve(20)
    one = ["poll", "accept"]
    assert calls == ["enable", *one * 16, *["accept more"] * 5, "rearm", "poll"]


def test_an_attempt_that_fails_is_repeated_after_sixteen_connections(monkeypatch):
    """It costs a system call."""
    calls = FakeAcceptor(monkeypatch).serve(16)
    assert calls == ["enable", *["poll", "accept"] * 16, "accept more", "poll"]
    acceptor = FakeAcceptor(monkeypatch)
    waiting = iter([1] * 33)

    def poll(timeout):
        acceptor.waiting = next(waiting, 0)
        return FakeAcceptor.poll(acceptor, timeout)

    acceptor.poll = poll
    calls = acceptor.serve(0)
    assert [at for at, call in enumerate(calls) if call == "accept more"] == [33, 66]


def test_connections_are_accepted_without_a_poll_for_5_ms(monkeypatch):
    """So that orders and other workers get their turn."""
    acceptor = FakeAcceptor(monkeypatch, step=0.002)
    calls = acceptor.serve(40)
    one = ["poll", "accept"]
    more = [*one, "accept more", "accept more", "rearm"]
    assert calls[: 1 + 32 + 3] == ["enable", *one * 16, "accept more", "accept more", "rearm"]
    assert calls[36 : 36 + 2 * len(more)] == more * 2
    assert acceptor.served == 40
    late = FakeAcceptor(monkeypatch, step=0.006)
    assert "accept more" not in late.serve(40)


def test_an_order_to_retire_ends_the_burst(monkeypatch):
    """Whoever waits: other workers accept them."""
    acceptor = FakeAcceptor(monkeypatch)
    done = acceptor.done

    def retire():
        done()
        acceptor.retiring = acceptor.served >= 18

    acceptor.slot_writer.request_done = retire
    calls = acceptor.serve(40)
    assert calls == ["enable", *["poll", "accept"] * 16, *["accept more"] * 2, "rearm"]
    acceptor = FakeAcceptor(monkeypatch)
    acceptor.slot_writer.request_done = lambda: setattr(acceptor, "retiring", True)
    acceptor.retiring = False
    assert acceptor.serve(40) == ["enable", "poll", "accept"]


class Zygote(BaseException):
    """The new process leaves the worker's loop by this."""


@pytest.mark.parametrize("opens", [False, True])
def test_a_zygote_is_forked_before_the_next_poll(monkeypatch, opens):
    """Once; in it, the connections with unfinished handshakes are closed."""
    acceptor, closed = FakeAcceptor(monkeypatch), []

    class Handshakes:
        full = False
        completed = ()
        close_after_fork = staticmethod(lambda: closed.append("closed"))
        timeout = staticmethod(lambda: None)
        advance = staticmethod(lambda: None)

        def __len__(self):
            return 0

    handshakes = Handshakes() if opens else None
    acceptor.pending_refork = 3
    stream.serve(acceptor, print, handshakes)
    assert [call for call in acceptor.calls if call != "enable"] == ["fork 3", "poll"]
    assert closed == []

    def leave():
        raise Zygote

    acceptor.pending_refork, acceptor.retiring, acceptor.fork_zygote = 4, False, leave
    with pytest.raises(Zygote):
        stream.serve(acceptor, print, handshakes)
    assert closed == (["closed"] if opens else [])
