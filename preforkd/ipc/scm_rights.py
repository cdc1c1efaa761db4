"""Descriptors that nobody asked for: they harm by being closed.

Whoever can send to a Unix socket can send descriptors with the data, and the last close of some waits:
that of a TCP socket with SO_LINGER for its peer, that of a terminal for its output, that of a file for
its server. It is the receiver who waits, whether he takes such a descriptor, passes it over, or closes
his socket with it unread. Linux 6.16 lets a socket refuse them (SO_PASSRIGHTS); before that they are
found by a peek, which closes nothing, are never received, and a socket that may hold some is closed in
a thread. unix(7), socket(7)
"""

import contextlib
import socket
import threading
from collections.abc import Callable

_SO_PASSRIGHTS = 83


def refuse(sock: socket.socket) -> bool:
    """Have the kernel refuse descriptors that are sent to this Unix socket; tell whether it does.

    What a listening socket accepts inherits that.
    """
    return _pass(sock, allowed=False)


def allow(sock: socket.socket) -> None:
    """Let descriptors be sent to this Unix socket again."""
    _pass(sock, allowed=True)


def _pass(sock: socket.socket, *, allowed: bool) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, allowed)
    except OSError:
        return False
    return True


def close_in_thread(close: Callable[[], None], done: Callable[[], None] = lambda: None) -> None:
    """Call ``close``, which may wait for long, in a thread, then ``done`` there.

    A process that ends does not wait for it. Where the system grants no thread, the caller waits.
    """

    def run() -> None:
        with contextlib.suppress(OSError):
            close()
        done()

    try:
        threading.Thread(target=run, name="close", daemon=True).start()
    except RuntimeError:
        run()
