"""Sockets that systemd passed: checked, named, and left as they were.

sd_listen_fds(3), systemd.socket(5)
"""

import os
import socket
import stat

from msgspec import Struct


class Inherited(Struct, frozen=True):
    """A listening stream socket from systemd, with its FileDescriptorName= and its address."""

    name: str
    sock: socket.socket
    address: str


class Refused(Struct, frozen=True):
    """A descriptor that cannot be served, and why; it stays open and untouched."""

    name: str
    fd: int
    reason: str


def inherited_listeners() -> tuple[list[Inherited], list[Refused]]:
    """Return what systemd passed to this process ($LISTEN_PID), in no order that means anything.

    All of them are close-on-exec afterwards; no other property is changed.
    """
    if "LISTEN_FDS" not in os.environ:
        return [], []
    # It brings libsystemd, which is of no use where nothing is passed.
    from systemd import daemon  # noqa: PLC0415

    good: list[Inherited] = []
    bad: list[Refused] = []
    for fd, name in daemon.listen_fds_with_names(unset_environment=False).items():
        os.set_inheritable(fd, False)
        reason = _unfit(fd)
        if reason:
            bad.append(Refused(name, fd, reason))
        else:
            sock = socket.socket(fileno=fd)
            good.append(Inherited(name, sock, address_of(sock)))
    return good, bad


def _unfit(fd: int) -> str:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return "it is no socket; only ListenStream= can be served"
    sock = socket.socket(fileno=fd)
    try:
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        family = sock.family
    finally:
        sock.detach()
    if kind == socket.SOCK_DGRAM:
        return "it is a datagram socket; write ListenStream= instead of ListenDatagram="
    if kind != socket.SOCK_STREAM:
        return "it is no stream socket; write ListenStream="
    if family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        return f"its address family {family} is neither IPv4, IPv6 nor Unix"
    if not listening:
        return "it is a connection and no listener; write Accept=no in the socket unit"
    return ""


def address_of(sock: socket.socket) -> str:
    """Return a listener's address as it is written in a configuration."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = name.decode(errors="replace") if isinstance(name, bytes) else name
        return "unix:" + text.replace("\0", "@")
    host, port = name[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def set_nonblocking(sock: socket.socket) -> bool:
    """Make the socket non-blocking; return whether it was blocking.

    O_NONBLOCK belongs to the open file description, so the socket unit's own descriptor shares it.
    """
    was_blocking = os.get_blocking(sock.fileno())
    os.set_blocking(sock.fileno(), False)
    return was_blocking


def restore_blocking(sock: socket.socket) -> None:
    """Make the socket blocking again, as it was passed."""
    os.set_blocking(sock.fileno(), True)
