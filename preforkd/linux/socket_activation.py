"""Sockets passed by systemd: checked, and left unchanged.

sd_listen_fds(3), systemd.socket(5). The variables are read here: systemd-python would be a dependency that pip
compiles.
"""

import os
import socket
import stat

from msgspec import Struct

from preforkd.errors import SystemFailure

_FIRST = 3
"""The first descriptor that is passed: SD_LISTEN_FDS_START."""
_MOST = 1 << 16
_HINT = "the process that starts preforkd sets these variables: sd_listen_fds(3)"


class Inherited(Struct, frozen=True):
    """A listening stream socket from systemd, with its FileDescriptorName= and its address."""

    name: str
    sock: socket.socket
    address: str


class Refused(Struct, frozen=True):
    """A descriptor that cannot be served, and the reason; it stays open.

    ``file``: it is a regular file, probably of OpenFile= in the service unit.
    """

    name: str
    fd: int
    reason: str
    file: bool = False


class Passed(Struct, frozen=True):
    """What systemd passed; ``foreign`` is the reason if the descriptors are for another process."""

    good: list[Inherited] = []
    bad: list[Refused] = []
    foreign: str = ""


def inherited_listeners() -> Passed:
    """Return what systemd passed to this process; the order has no meaning.

    All descriptors are close-on-exec afterwards; no other property is changed. Raises SystemFailure if
    $LISTEN_FDS, $LISTEN_PID or $LISTEN_FDNAMES contradict what is there.
    """
    announced, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if announced in {"", "0"}:
        return Passed()
    if not (announced.isascii() and announced.isdecimal()):
        raise SystemFailure(f"LISTEN_FDS={announced!r} is not a number of sockets", hint=_HINT)
    if pid != str(os.getpid()):
        return _for_another(
            f"process {pid} (LISTEN_PID)" if pid else "no process: LISTEN_PID is not set"
        )
    if (identity := os.environ.get("LISTEN_PIDFDID", "")) and not _is_own(identity):
        return _for_another(f"another process of this pid (LISTEN_PIDFDID={identity})")
    passed = Passed([], [])
    for fd, name in enumerate(_names(int(announced)), _FIRST):
        os.set_inheritable(fd, False)
        mode = os.fstat(fd).st_mode
        not_a_socket = "it is not a socket; only ListenStream= can be served"
        if reason := _unusable(fd) if stat.S_ISSOCK(mode) else not_a_socket:
            passed.bad.append(Refused(name, fd, reason, stat.S_ISREG(mode)))
        else:
            sock = socket.socket(fileno=fd)
            passed.good.append(Inherited(name, sock, address_of(sock)))
    return passed


def _names(number: int) -> list[str]:
    """Return a name for each descriptor, all of which are open. Raises SystemFailure."""
    given = os.environ.get("LISTEN_FDNAMES")
    # Without the variable sd_listen_fds_with_names(3) has this name for all.
    names = ["unknown"] * min(number, _MOST) if given is None else given.split(":")
    reason = f"{len(names)} names for {number} descriptors" if len(names) != number else ""
    for fd in range(_FIRST, _FIRST + len(names)):
        if not reason and not _is_open(fd):
            reason = f"descriptor {fd} is not open"
    if reason:
        variables = f"LISTEN_FDS={number}" + ("" if given is None else f", LISTEN_FDNAMES={given}")
        message = f"cannot take over the passed sockets: {variables}: {reason}"
        raise SystemFailure(message, hint=_HINT)
    return names


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_own(identity: str) -> bool:
    """Return whether this process has the identity that systemd 259 and later pass: a pid may be reused."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        status = os.fstat(pidfd)
    finally:
        os.close(pidfd)
    # Before Linux 6.9 all pidfds are one anonymous inode, which has no file type.
    return not stat.S_ISREG(status.st_mode) or str(status.st_ino) == identity


def _for_another(process: str) -> Passed:
    text = f"LISTEN_FDS={os.environ['LISTEN_FDS']} is for {process}; this is process {os.getpid()}"
    cause = "PrivatePIDs=, a container, or a program in between that did not exec"
    return Passed(foreign=f"{text}: those sockets are not served (the cause may be {cause})")


def _unusable(fd: int) -> str:
    sock = socket.socket(fileno=fd)
    try:
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        family = sock.family
    finally:
        sock.detach()
    if kind == socket.SOCK_SEQPACKET:
        return "it is a sequential-packet socket; write ListenStream= instead of ListenSequentialPacket="
    if kind == socket.SOCK_DGRAM:
        return "it is a datagram socket; write ListenStream= instead of ListenDatagram="
    if kind != socket.SOCK_STREAM:
        return "it is not a stream socket; write ListenStream="
    if family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        return f"its address family {family} is neither IPv4, IPv6 nor Unix"
    if not listening:
        return "it is a connected socket, not a listener; write Accept=no in the socket unit"
    return ""


def address_of(sock: socket.socket) -> str:
    """Return a listener's address as it is written in a configuration."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = name.decode(errors="replace") if isinstance(name, bytes) else name
        return "unix:" + text.replace("\0", "@")
    host, port = name[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def serves_path(sock: socket.socket, path: str) -> bool:
    """Return whether a listener is the Unix socket at this path."""
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX or not isinstance(name, str):
        return False
    return os.path.realpath(name) == os.path.realpath(path)


def serves_tcp(sock: socket.socket, host: str | None, port: int) -> bool:
    """Return whether a listener accepts connections to this host (None: every address) and port."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6} or sock.getsockname()[1] != port:
        return False
    own = sock.getsockname()[0]
    everywhere = own in {"0.0.0.0", "::"}  # noqa: S104 - compared only
    if host is None:
        return everywhere
    families = {sock.family}
    if everywhere and sock.family == socket.AF_INET6:
        only = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        families |= set() if only else {socket.AF_INET}
    try:
        found = socket.getaddrinfo(host.encode() if host.isascii() else host, port)
    except OSError:
        return False
    return any(entry[0] in families and (everywhere or entry[4][0] == own) for entry in found)


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
