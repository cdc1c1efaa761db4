"""A channel: one end of a SOCK_SEQPACKET pair between the master and a child.

A datagram is one message in MessagePack.  File descriptors accompany it (SCM_RIGHTS), and the kernel adds the
sender's pid (SCM_CREDENTIALS), which a child without privileges cannot forge.  End-of-file means that the process
at the other end is gone.  unix(7), socketpair(2)
"""

import array
import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import msgspec

from preforkd.ipc import scm_rights

T = TypeVar("T")

CHANNEL_DESCRIPTOR = 3
STACKS_DESCRIPTOR = 4
"""The descriptors that a zygote inherits when it is executed: its channel, and the memory for its stacks."""

_CREDENTIALS = struct.Struct("3i")
_MESSAGE_LIMIT = 256 * 1024
_DESCRIPTOR_LIMIT = 253  # SCM_MAX_FD
_CREDENTIALS_ONLY = socket.CMSG_LEN(_CREDENTIALS.size)
_ANCILLARY = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_DESCRIPTOR_LIMIT * 4)


class ChannelClosedError(Exception):
    """The process at the other end is gone."""


class UnwantedDescriptorsError(ChannelClosedError):
    """The other end has sent descriptors where none are allowed: the channel is not read any more."""


class MalformedMessageError(Exception):
    """A datagram is not a message of its direction."""


class Received(msgspec.Struct, Generic[T], frozen=True):
    """A message, its descriptors, which the receiver must close, and the sender's pid."""

    message: T
    descriptors: tuple[int, ...]
    pid: int


class Channel(Generic[T]):
    """One end; ``T`` is the union of the messages that it receives.

    ``takes_descriptors``: whether the other end may send descriptors; see `preforkd.ipc.scm_rights`.
    """

    def __init__(
        self,
        sock: socket.socket,
        decoder: "msgspec.msgpack.Decoder[T]",
        *,
        takes_descriptors: bool = True,
    ) -> None:
        self._sock = sock
        self._peeks = not takes_descriptors and not scm_rights.refuse(sock)
        """The kernel cannot refuse descriptors: look for them before each receive."""
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def fileno(self) -> int:
        """Return the descriptor to wait on for reading; -1 once closed."""
        return self._sock.fileno()

    def send(
        self, message: msgspec.Struct, descriptors: Sequence[int] = (), *, wait: bool = False
    ) -> None:
        """Send one message.

        Raises ChannelClosedError if the other end is closed, and, without ``wait``, BlockingIOError if the
        channel is full: the master must not block on a child that does not read.
        """
        ancillary = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            if descriptors
            else []
        )
        flags = socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT)
        try:
            self._sock.sendmsg([self._encoder.encode(message)], ancillary, flags)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosedError from error

    def receive(self, *, wait: bool) -> Received[T] | None:
        """Return the next message; None if there is none yet and ``wait`` is false.

        Raises ChannelClosedError at end-of-file, UnwantedDescriptorsError, and MalformedMessageError, after
        which the channel can still be used.
        """
        how = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        try:
            if self._peeks:
                # The buffer has room for the credentials only: MSG_CTRUNC means that there are descriptors.
                _, _, seen, _ = self._sock.recvmsg(1, _CREDENTIALS_ONLY, how | socket.MSG_PEEK)
                if seen & socket.MSG_CTRUNC:
                    raise UnwantedDescriptorsError
            data, ancillary, flags, _ = self._sock.recvmsg(_MESSAGE_LIMIT, _ANCILLARY, how)
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            raise ChannelClosedError from error
        pid, descriptors = _unpack(ancillary)
        if not data:
            close_all(descriptors)
            raise ChannelClosedError
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            close_all(descriptors)
            raise MalformedMessageError(f"from pid {pid}: message too long")
        try:
            message = self._decoder.decode(data)
        except (ValueError, RecursionError) as error:  # DecodeError, and text that is not UTF-8
            close_all(descriptors)
            raise MalformedMessageError(f"from pid {pid}: {error}") from error
        return Received(message, descriptors, pid)

    def close(self) -> None:
        """Close this end; the other reads end-of-file. A second call does nothing."""
        if self._peeks and self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            scm_rights.close_in_thread(socket.socket(fileno=self._sock.detach()).close)
        self._sock.close()


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, tuple[int, ...]]:
    pid, descriptors = 0, array.array("i")
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS and len(data) >= _CREDENTIALS.size:
            pid = _CREDENTIALS.unpack_from(data)[0]
        elif kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return pid, tuple(descriptors)


def close_all(descriptors: Iterable[int]) -> None:
    """Close the descriptors of a message that is ignored."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the ends of a new channel: the master's, which is non-blocking, and the child's; close-on-exec."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    # Set before the child can send: a message that arrives earlier would have no credentials.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs
