"""The handoff queue: the socket pair through which workers of a generation pass connections to each other.

A worker whose application takes long puts the other connections it holds into the queue: each one whose
request is complete, with the bytes that were read from it.  All workers of the generation watch the receiving
end, and the kernel wakes one that is idle, as it does for accept(2).  unix(7), SCM_RIGHTS
"""

import contextlib
import os
import socket
from array import array
from typing import Annotated

import msgspec

from preforkd.ipc.channel import close_all

_INLINE_BODY_LIMIT = 96 * 1024
"""Bytes of a body that travels within the message; a larger one travels as a memory file."""
_MESSAGE_LIMIT = 256 * 1024
_MOVE_LIMIT = 4096
"""More messages than any queue has room for: bounds `move`."""


_TWO_DESCRIPTORS = socket.CMSG_LEN(2 * array("i").itemsize)
_RECEIVE_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class HandedConnection(msgspec.Struct, frozen=True):
    """The state of a connection with one complete request."""

    listener: Annotated[int, msgspec.Meta(ge=0)]
    """Index of the listener that accepted it."""
    trusted: bool
    """The client's address is one of http.proxy.trusted."""
    remote: str
    remote_port: str
    requests: int
    """Requests answered on this connection before."""
    head: bytes
    body: bytes
    body_length: int
    """Larger than ``len(body)``: the body is in the second descriptor."""
    buffered: bytes
    """What was read beyond the request."""
    closing: bool = False
    """The connection is closed after the response."""


# Created on import, in the zygote: workers share the pages.
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HandedConnection).decode


class ReceivedConnection(msgspec.Struct):
    """A connection from the queue, with its descriptors."""

    connection: HandedConnection
    sock: socket.socket
    body: int | None

    def close(self) -> None:
        """Close the connection, and the body's descriptor if it was not taken over."""
        self.sock.close()
        if self.body is not None:
            os.close(self.body)


class HandoffQueue:
    """One worker's ends of the queue, inherited from the zygote."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        for sock in (sender, receiver):
            sock.setblocking(False)
        self._sender = sender
        self._receiver = receiver

    def fileno(self) -> int:
        """Return the descriptor that is readable when a connection waits."""
        return self._receiver.fileno()

    def descriptors(self) -> tuple[int, int]:
        """Return both descriptors; -1 for a closed one."""
        return self._sender.fileno(), self._receiver.fileno()

    def put(self, connection: HandedConnection, descriptor: int, body: int | None) -> bool:
        """Put a connection into the queue; return False when it is full. Does not close the descriptors."""
        data = _encode(connection)
        descriptors = [descriptor] if body is None else [descriptor, body]
        try:
            socket.send_fds(self._sender, [data], descriptors)
        except OSError:
            return False  # full, too large, or too many descriptors in flight: the caller keeps it
        return True

    def get(self) -> ReceivedConnection | None:
        """Return the next connection; None when another worker was faster, or the message is invalid."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._receiver, _MESSAGE_LIMIT, 2)
        except OSError:
            return None
        if not descriptors:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        try:
            connection = _decode(data)
            sock = socket.socket(fileno=descriptors[0])
        except (ValueError, RecursionError, OSError):
            close_all(descriptors)
            return None
        return ReceivedConnection(
            connection, sock, descriptors[1] if len(descriptors) > 1 else None
        )

    def close(self) -> None:
        """Close this worker's ends."""
        self._sender.close()
        self._receiver.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the sending and the receiving end of a new queue. Raises OSError."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return sender, receiver


def move(source: socket.socket, target: socket.socket) -> tuple[int, int]:
    """Move the waiting connections, undecoded, from one queue's receiving end to another's sending end.

    Returns how many were moved, and how many found the other queue full and were closed. Never blocks.
    unix(7), SCM_RIGHTS
    """
    moved = lost = 0
    for _ in range(_MOVE_LIMIT):
        # socket.recv_fds and send_fds of Python 3.11 do not pass flags on.
        try:
            data, ancillary, _, _ = source.recvmsg(_MESSAGE_LIMIT, _TWO_DESCRIPTORS, _RECEIVE_FLAGS)
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
    """Return a descriptor of an unnamed memory file with this content; None if there is no memory."""
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create("preforkd-body", os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        return descriptor
    return None


fits = _INLINE_BODY_LIMIT.__ge__
"""Return whether a body of this length travels within the message."""

__all__ = [
    "HandedConnection",
    "HandoffQueue",
    "ReceivedConnection",
    "as_file",
    "fits",
    "move",
    "pair",
]
