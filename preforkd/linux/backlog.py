"""How many connections wait in a listener's backlog, and how many messages at a socket.

tcp(7), TCP_INFO; sock_diag(7), UNIX_DIAG; socket(7), SO_PEEK_OFF
"""

import contextlib
import os
import select
import socket
import struct

_UNACKED = 24
"""Offset of tcpi_unacked in struct tcp_info: for a listening socket, the length of the backlog."""
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_UDIAG_SHOW_RQLEN = 0x10
_UNIX_DIAG_RQLEN = 4
_LISTEN = 1 << 10
_REQUEST = struct.Struct("=IHHII BBHIIIII")
"""struct nlmsghdr, struct unix_diag_req."""
_HEADER, _MESSAGE, _ATTRIBUTE = struct.Struct("=IHHII"), 16, struct.Struct("=HH")
_ANSWER = 8192
_SO_PEEK_OFF = 42
_LENGTH_ONLY = socket.MSG_PEEK | socket.MSG_TRUNC | socket.MSG_DONTWAIT


def waiting(sock: socket.socket) -> int:
    """Return how many connections wait at a listening socket; 0 if it is unknown.

    For a Unix socket without sock_diag (AF_NETLINK may be forbidden) it is 1 if any waits.
    """
    if sock.family == socket.AF_UNIX:
        depth = _unix_depth(sock)
        return int(readable(sock)) if depth is None else depth
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
    except OSError:
        return int(readable(sock))
    return int.from_bytes(info[_UNACKED:], "little") if len(info) >= _UNACKED + 4 else 0


def readable(sock: socket.socket) -> bool:
    """Return whether a connection or a message waits at a socket."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def queued_messages(sock: socket.socket, limit: int) -> int:
    """Return how many messages wait at a socket of type SOCK_SEQPACKET; at most ``limit``.

    They stay there with their descriptors. No other process may peek at the socket.
    """
    count = offset = 0
    with contextlib.suppress(OSError):  # BlockingIOError: no further message
        while count < limit:
            sock.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, offset)
            size = sock.recv_into(bytearray(1), 1, _LENGTH_ONLY)
            if not size:
                break  # the other end is closed, or the message is empty
            offset += size
            count += 1
    return count


def _unix_depth(sock: socket.socket) -> int | None:
    inode = os.fstat(sock.fileno()).st_ino
    request = _REQUEST.pack(
        _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0,
        socket.AF_UNIX, 0, 0, _LISTEN, inode, _UDIAG_SHOW_RQLEN, 0xFFFFFFFF, 0xFFFFFFFF,
    )  # fmt: skip
    with contextlib.suppress(OSError, struct.error):
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(0.1)
            netlink.sendto(request, (0, 0))
            return _depth_in(netlink.recv(_ANSWER))
    return None


def _depth_in(answer: bytes) -> int | None:
    length, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    position = _HEADER.size + _MESSAGE
    while position + _ATTRIBUTE.size <= min(length, len(answer)):
        size, name = _ATTRIBUTE.unpack_from(answer, position)
        if name == _UNIX_DIAG_RQLEN:
            return int(struct.unpack_from("=I", answer, position + _ATTRIBUTE.size)[0])
        position += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return None
