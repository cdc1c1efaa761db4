"""The peer of a control connection, and whether it may command.

Every peer that can connect may read. Commands are allowed to root, the user that preforkd runs as, and
members of the group that ``control.group`` names. unix(7): SO_PEERCRED, SO_PEERGROUPS
"""

import array
import contextlib
import grp
import os
import socket
import struct

import msgspec

_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = 59
_GROUPS_ROOM = 1024
"""Bytes, the most that socket.getsockopt takes: 256 groups; if there are more, none is considered."""


class Peer(msgspec.Struct, frozen=True):
    """The process that connected, as the kernel knew it then."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer_of(sock: socket.socket) -> Peer:
    """Return the process that connected. Raises OSError."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    groups = array.array("I")
    with contextlib.suppress(OSError):
        groups.frombytes(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_ROOM))
    return Peer(pid, uid, frozenset([gid, *groups]))


def may_command(peer: Peer, group: str) -> bool:
    """Return whether this peer may command; ``group`` is a name, a number, or empty."""
    if peer.uid in {0, os.geteuid()}:
        return True
    number = _group_number(group)
    return number is not None and number in peer.groups


def _group_number(group: str) -> int | None:
    if not group:
        return None
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
