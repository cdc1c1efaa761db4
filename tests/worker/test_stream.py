"""The stream worker: one connection at a time, from accept to close."""

import socketserver
import threading
import time

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
