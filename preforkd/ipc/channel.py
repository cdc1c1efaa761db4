"""A channel: one end of a SOCK_SEQPACKET pair between the master and a child.

A datagram is one message in MessagePack; file descriptors travel with it (SCM_RIGHTS), and the
kernel adds who sent it (SCM_CREDENTIALS), so a child cannot give itself another's pid.  End-of-file
means that the other side is gone: for the master that the child has ended, for a child that the
master has.  unix(7), socketpair(2).
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

_CREDENTIALS = struct.Struct("3i")
_MESSAGE_LIMIT = 256 * 1024
_DESCRIPTOR_LIMIT = 253  # SCM_MAX_FD
_CREDENTIALS_ONLY = socket.CMSG_LEN(_CREDENTIALS.size)
_ANCILLARY = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_DESCRIPTOR_LIMIT * 4)


class ChannelClosedError(Exception):
    """The other side is gone."""


class UnwantedDescriptorsError(ChannelClosedError):
    """The other side has sent descriptors where none are due: it is not listened to any more."""


class MalformedMessageError(Exception):
    """The other side said something that is no message of its language."""


class Received(msgspec.Struct, Generic[T], frozen=True):
    """A message, its descriptors (the receiver's to close), and the sender's pid."""

    message: T
    descriptors: tuple[int, ...]
    pid: int


class Channel(Generic[T]):
    """One end; ``T`` is what is received.

    ``takes_descriptors``: whether the other side may send some; see `preforkd.ipc.scm_rights`.
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
        """Descriptors may come although none are due: the kernel cannot refuse them."""
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

        Raises ChannelClosedError when the other side is gone, and, unless it may ``wait``,
        BlockingIOError when the other side does not read what it is sent: a master must not
        wait for its child.
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
        """Return the next message; None when there is none yet and ``wait`` is false.

        Raises ChannelClosedError at end-of-file, UnwantedDescriptorsError, and MalformedMessageError
        for what is no message; the channel goes on after the latter.
        """
        how = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        try:
            if self._peeks:
                # There is room for credentials only, so what is cut are descriptors.
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
        except (ValueError, RecursionError) as error:  # DecodeError, and text that is no UTF-8
            close_all(descriptors)
            raise MalformedMessageError(f"from pid {pid}: {error}") from error
        return Received(message, descriptors, pid)

    def close(self) -> None:
        """Close this end; the other sees end-of-file. Closing twice is harmless."""
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
    """Close descriptors that came with a message nobody wants."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new channel, the master's (non-blocking) first; close-on-exec."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    # A child's first messages may be sent before its master looks; none may lack its sender's pid.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs
