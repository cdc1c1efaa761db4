"""Where workers of a generation leave connections for each other.

A worker that is in the application for long gives away what it holds: each connection whose request
is complete goes, with what was read of it, into one socket that all of them watch, and the kernel
gives it to exactly one that is idle, as accept does. unix(7), SCM_RIGHTS
"""

import contextlib
import os
import socket
from array import array
from typing import Annotated

import msgspec

from preforkd.ipc.channel import close_all

_MOST = 96 * 1024
"""Bytes of a message; a larger body travels as a file."""
_LARGEST = 256 * 1024
_GIFTS = 4096
"""More than any exchange has room for."""


_RIGHTS = socket.CMSG_LEN(2 * array("i").itemsize)
_UNREAD = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class HandedConnection(msgspec.Struct, frozen=True):
    """A connection with one complete request, and what came behind it."""

    front: Annotated[int, msgspec.Meta(ge=0)]
    trusted: bool
    remote: str
    remote_port: str
    served: int
    head: bytes
    body: bytes
    body_length: int
    """More than there is of ``body``: the body is in the second descriptor."""
    rest: bytes
    leaving: bool = False


# Made with the module, before the fork, as pages that the workers share.
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HandedConnection).decode


class ReceivedConnection(msgspec.Struct):
    """A gift with its descriptors."""

    gift: HandedConnection
    sock: socket.socket
    body: int | None

    def close(self) -> None:
        """Give up the connection, and the body if nobody has taken it over."""
        self.sock.close()
        if self.body is not None:
            os.close(self.body)


class HandoffQueue:
    """One worker's view of the socket pair that all workers of a zygote have inherited."""

    def __init__(self, giving: socket.socket, taking: socket.socket) -> None:
        for sock in (giving, taking):
            sock.setblocking(False)
        self._giving = giving
        self._taking = taking

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to take."""
        return self._taking.fileno()

    def descriptors(self) -> tuple[int, int]:
        """Return both; -1 for what is closed."""
        return self._giving.fileno(), self._taking.fileno()

    def give(self, gift: HandedConnection, descriptor: int, body: int | None) -> bool:
        """Leave a connection; False when there is no room. The caller closes its descriptors."""
        data = _encode(gift)
        descriptors = [descriptor] if body is None else [descriptor, body]
        try:
            socket.send_fds(self._giving, [data], descriptors)
        except OSError:
            return False  # full, too large, or too many descriptors on their way: it stays here
        return True

    def take(self) -> ReceivedConnection | None:
        """Return what another worker has left; None when another was faster, or it is no gift."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._taking, _LARGEST, 2)
        except OSError:
            return None
        if not descriptors:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        try:
            gift = _decode(data)
            sock = socket.socket(fileno=descriptors[0])
        except (ValueError, RecursionError, OSError):
            close_all(descriptors)
            return None
        return ReceivedConnection(gift, sock, descriptors[1] if len(descriptors) > 1 else None)

    def close(self) -> None:
        """Give up this worker's ends."""
        self._giving.close()
        self._taking.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the ends of a new exchange: for giving and for taking. Raises OSError."""
    giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return giving, taking


def move(source: socket.socket, target: socket.socket) -> tuple[int, int]:
    """Move what waits in one exchange to another, unread: from its taking end to the other's giving end.

    Returns how many connections went, and how many found no room there and are closed. Nobody is waited
    for. unix(7), SCM_RIGHTS
    """
    moved = lost = 0
    for _ in range(_GIFTS):
        # socket.recv_fds and send_fds of Python 3.11 do not pass flags on.
        try:
            data, ancillary, _, _ = source.recvmsg(_LARGEST, _RIGHTS, _UNREAD)
        except OSError:
            break
        rights = [row for row in ancillary if row[:2] == (socket.SOL_SOCKET, socket.SCM_RIGHTS)]
        if not rights:
            continue
        try:
            target.sendmsg([data], rights, socket.MSG_DONTWAIT)
            moved += 1
        except OSError:
            lost += 1
        finally:
            for _, _, packed in rights:
                close_all(array("i", packed))
    return moved, lost


def as_file(data: bytes) -> int | None:
    """Return a descriptor of a nameless file with this content; None if there is no memory."""
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create("preforkd-body", os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        return descriptor
    return None


fits = _MOST.__ge__
"""Tell whether a body of so many bytes travels in the message."""

__all__ = [
    "HandedConnection",
    "HandoffQueue",
    "ReceivedConnection",
    "as_file",
    "fits",
    "move",
    "pair",
]
