"""Errors of sockets: those of the system end a connection, those of a signal handler are its own."""

import socket

import pytest

from preforkd.worker.wsgi.response import ClientGoneError
from preforkd.worker.wsgi.sockets import as_client_gone, set_nodelay


def test_a_timeout_of_a_signal_handler_is_no_client_that_has_gone():
    """TimeoutError is an OSError; one of the system has a number."""
    error = TimeoutError("late")
    assert as_client_gone(error) is error
    with socket.socket() as sock, pytest.raises(OSError) as caught:
        sock.getpeername()
    assert isinstance(as_client_gone(caught.value), ClientGoneError)


def test_nodelay_is_for_tcp_only():
    """It is set on TCP; a Unix socket and one that is closed are left as they are."""
    with socket.socket() as sock:
        set_nodelay(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    set_nodelay(sock)
    with socket.socket(socket.AF_UNIX) as sock:
        set_nodelay(sock)
    set_nodelay(object())  # with TLS, it was set before the handshake
