"""Stream handlers."""

import logging
import socket
import socketserver

import pytest

from preforkd.apps import stream


@pytest.fixture
def ends():
    """A connection: the server's end and the client's."""
    server, client = socket.socketpair()
    client.settimeout(5)
    yield server, client
    server.close()
    client.close()


def test_a_function_and_a_request_handler_class(ends):
    """Both get the connection and the peer; a StreamRequestHandler has its files."""

    class Upper(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.readline().upper())

    server, client = ends
    client.sendall(b"hello\n")
    stream.call(stream.as_handler(Upper), server, ("peer", 1))
    assert client.recv(99) == b"HELLO\n"
    assert client.recv(99) == b""


def test_an_answer_survives_what_was_not_read(ends):
    """A client that sends more than is read gets the whole answer and the end, no reset."""
    server, client = ends
    client.sendall(b"x" * 50_000)
    stream.call(lambda connection, _: connection.sendall(b"bye"), server, None)
    assert client.recv(99) == b"bye"
    assert client.recv(99) == b""


def test_a_handler_that_fails_is_logged_and_its_connection_closed(ends, caplog):
    """The worker goes on; a client that has left is no failure."""
    server, client = ends

    def fails(connection, peer):
        raise ValueError("boom")

    def interrupts(connection, peer):
        raise KeyboardInterrupt

    def leaves(connection, peer):
        raise BrokenPipeError

    with caplog.at_level(logging.INFO, logger="preforkd.app"):
        stream.call(leaves, socket.socket(), None)
        assert not caplog.records
    stream.call(interrupts, socket.socket(), "somebody")
    stream.call(fails, server, "somebody")
    assert "KeyboardInterrupt" in caplog.text
    assert "boom" in caplog.text
    assert client.recv(9) == b""


def test_a_handler_may_close_by_itself(ends):
    """Closing twice is harmless."""
    server, client = ends
    stream.call(lambda connection, _: connection.close(), server, None)
    assert client.recv(9) == b""
