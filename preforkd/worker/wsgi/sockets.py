"""What the WSGI server needs of a socket, and the errors of one."""

import contextlib
import socket
from typing import Any, Protocol

from preforkd.worker.wsgi.response import ClientGoneError


class Socket(Protocol):
    """The methods of a socket that are used; `preforkd.worker.tls.TlsSocket` has them as well."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return received bytes. Raises BlockingIOError if there are none."""

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send without blocking; return the bytes sent. Raises BlockingIOError if there is no room."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def shutdown(self, how: int, /) -> None:
        """End one direction or both."""

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option of the socket."""

    def close(self) -> None:
        """Close the socket."""


def as_client_gone(error: Exception) -> Exception:
    """Return ClientGoneError for an error of the system; one of a signal handler is returned as it is."""
    if isinstance(error, OSError) and error.errno is None:
        return error
    return ClientGoneError(str(error))


def set_nodelay(sock: Socket) -> None:
    """Set TCP_NODELAY, so that parts do not wait for the client's delayed acknowledgement, tcp(7)."""
    if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # a connection that is gone: the next call raises
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
