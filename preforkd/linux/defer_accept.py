"""Let the kernel keep a connection until its client has sent something: TCP_DEFER_ACCEPT, tcp(7).

A worker is then woken once for a connection with its request, and not once for each. The kernel counts the
time in retransmissions of its SYN-ACK. With the shortest time, which is used here, a client that sends nothing
can be accepted one second after its connect.
"""

import contextlib
import socket

_SECONDS = 1


def is_set(sock: socket.socket) -> bool:
    """Return whether a listening socket waits for the client's first bytes."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0
    except OSError:
        return False


def change(sock: socket.socket, *, defers: bool) -> None:
    """Let a listening socket wait for the client's first bytes, or no longer."""
    with contextlib.suppress(OSError):  # Unix sockets do not have it, nor MPTCP before Linux 5.19
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SECONDS if defers else 0)
