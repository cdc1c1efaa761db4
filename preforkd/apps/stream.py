"""Stream handlers: one connection at a time, as a function or in the manner of socketserver."""

import contextlib
import fcntl
import inspect
import logging
import select
import socket
import socketserver
import termios
from collections.abc import Callable
from typing import Any

from preforkd.config.address import as_ipv4

logger = logging.getLogger("preforkd.app")

_NOTHING = bytes(4)
_CLOSE_NOTIFY_TIMEOUT = 2.0
"""Seconds in which the socket must be writable for close_notify."""
_CLIENT_GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError, TimeoutError)
# By their names, so that OpenSSL is not loaded without TLS.
_CLIENT_GONE_TLS = {"SSLEOFError", "SSLZeroReturnError"}

StreamHandler = Callable[[socket.socket, Any], None]


class _Server:
    """The attributes of ``self.server`` that a `socketserver.BaseRequestHandler` may read."""

    def __init__(self, handler: type) -> None:
        self.RequestHandlerClass = handler
        self.server_address: Any = None
        self.timeout = None


def as_handler(application: Any) -> StreamHandler:
    """Return ``handle(connection, peer)`` for a callable or a `BaseRequestHandler` subclass."""
    if not (
        inspect.isclass(application) and issubclass(application, socketserver.BaseRequestHandler)
    ):
        handler: StreamHandler = application
        return handler
    server = _Server(application)

    def handle(connection: socket.socket, peer: Any) -> None:
        name = connection.getsockname()
        server.server_address = as_ipv4(name) if isinstance(name, tuple) else name
        application(connection, peer, server)  # type: ignore[arg-type]

    return handle


def call(handler: StreamHandler, connection: socket.socket, peer: Any) -> None:
    """Call the handler with one connection, and close the connection in any case.

    The handler's output is delivered even when the client has sent more than was read: closing a socket
    with unread input resets it, so the sending side is shut down first and some of the input is discarded.
    Over TLS close_notify is sent unless the handler failed. A handler that passes the connection to a child
    must detach its own copy.
    """
    try:
        handler(connection, peer)
        secure = getattr(connection, "unwrap", None)
        if secure is not None and connection.fileno() >= 0:
            _send_close_notify(connection, secure)
        if _has_unread(connection):
            _lingering_close(connection)
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, _CLIENT_GONE) or type(error).__name__ in _CLIENT_GONE_TLS:
            logger.debug("connection from %s: %s", peer, error)
        else:
            logger.exception("the handler failed on a connection from %s", peer)
    finally:
        connection.close()


def _send_close_notify(connection: socket.socket, unwrap: Callable[[], Any]) -> None:
    # The client's close_notify is not waited for; room for the server's is, for a moment.
    with contextlib.suppress(OSError, ValueError):
        connection.setblocking(False)
        try:
            unwrap()
        except BlockingIOError:
            pass
        except OSError as error:
            if type(error).__name__ == "SSLWantWriteError":
                poll = select.poll()
                poll.register(connection, select.POLLOUT)
                if poll.poll(_CLOSE_NOTIFY_TIMEOUT * 1000):
                    unwrap()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _has_unread(connection: socket.socket) -> bool:
    try:
        return fcntl.ioctl(connection.fileno(), termios.FIONREAD, _NOTHING) != _NOTHING
    except (OSError, ValueError):  # closed by the handler
        return False


def _lingering_close(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.setblocking(False)
        for _ in range(16):
            if not connection.recv(65536):
                break
    except OSError:
        pass  # closed by the handler, left by the client, or nothing to read
