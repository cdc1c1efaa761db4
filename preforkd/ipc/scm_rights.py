"""Protection against unwanted file descriptors (SCM_RIGHTS): closing them may block the receiver.

A peer that can send to a Unix socket can send descriptors with the data, and the last close(2) of some blocks:
of a TCP socket with SO_LINGER until its peer answers, of a terminal until its output is written, of a file on a
network until its server answers.  It is the receiver that blocks, whether it receives such a descriptor,
discards it, or closes its socket with the descriptor unread.

Since Linux 6.16 a socket can refuse descriptors (SO_PASSRIGHTS).  With older kernels `preforkd.ipc.channel`
detects them by a peek, which closes nothing, never receives them, and closes a socket that may hold some in a
thread. unix(7), socket(7)
"""

import contextlib
import socket
import threading
from collections.abc import Callable

_SO_PASSRIGHTS = 83


def refuse(sock: socket.socket) -> bool:
    """Make the kernel refuse descriptors that are sent to this Unix socket; return whether it can.

    Connections that a listening socket accepts inherit this.
    """
    return _pass(sock, allowed=False)


def allow(sock: socket.socket) -> None:
    """Allow descriptors to be sent to this Unix socket again."""
    _pass(sock, allowed=True)


def _pass(sock: socket.socket, *, allowed: bool) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, allowed)
    except OSError:
        return False
    return True


def close_in_thread(close: Callable[[], None], done: Callable[[], None] = lambda: None) -> None:
    """Call ``close``, which may block, and then ``done`` in a daemon thread.

    The exit of the process does not wait for it. If no thread can be started, the caller blocks.
    """

    def run() -> None:
        with contextlib.suppress(OSError):
            close()
        done()

    try:
        threading.Thread(target=run, name="close", daemon=True).start()
    except RuntimeError:
        run()
