"""The stream worker: one connection at a time, from accept to close."""

import socketserver

from serving import serving


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
