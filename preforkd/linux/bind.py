"""Listening sockets that preforkd binds itself.

ip(7), ipv6(7), unix(7)
"""

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from preforkd.errors import SystemFailure, refused

_HINTS = {
    errno.EADDRINUSE: "stop what listens there (ss -ltnp shows it), or choose another port",
    errno.EACCES: "ports below 1024 need a socket unit, or AmbientCapabilities=CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this machine has the address (ip address shows them)",
}

# linux/posix_acl.h, linux/posix_acl_xattr.h
_ACL_USER_OBJ, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = 0x01, 0x04, 0x08, 0x10, 0x20
_ACL_NOBODY = 0xFFFFFFFF
_ACL_VERSION = 2


def bind_tcp(host: str | None, port: int, backlog: int) -> list[socket.socket]:
    """Return listening sockets for each address of the host; None: every address, IPv4 and IPv6.

    They are non-blocking and close-on-exec. Raises SystemFailure.
    """
    if host is None:
        return [_bind_everywhere(port, backlog)]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # A str would be encoded by the idna codec, whose tables take 0.3 MB; few host names need it.
    name = host.encode() if host.isascii() else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise SystemFailure(
            f"{where}: unknown host: {error.strerror}",
            hint="use an address, or a name that this machine can resolve",
        ) from error
    bound: list[socket.socket] = []
    failures: list[SystemFailure] = []
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            bound.append(_listen_on(family, address, backlog, where, v6_only=True))
        except SystemFailure as error:
            failures.append(error)
    # A name may also resolve to an address of a family that is disabled here.
    fatal = failures if not bound else [error for error in failures if not _is_elsewhere(error)]
    if fatal:
        for sock in bound:
            sock.close()
        raise fatal[0]
    return bound


def _is_elsewhere(error: SystemFailure) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in {
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
    }


def _bind_everywhere(port: int, backlog: int) -> socket.socket:
    where = f":{port}"
    if socket.has_dualstack_ipv6():
        return _listen_on(socket.AF_INET6, ("::", port), backlog, where, v6_only=False)
    return _listen_on(socket.AF_INET, ("0.0.0.0", port), backlog, where)  # noqa: S104 - as asked


def _listen_on(
    family: int, address: tuple[object, ...], backlog: int, where: str, *, v6_only: bool = False
) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise refused(f"{where} cannot be bound", error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        hint = _HINTS.get(error.errno or 0, "")
        raise SystemFailure(f"{where} cannot be bound: {error.strerror}", hint=hint) from error
    return sock


# --- Unix sockets --------------------------------------------------------------------------------


def bind_unix(path: str, mode: int, owner: str, group: str, backlog: int) -> socket.socket:
    """Return a listening socket at the path, with these permissions from its first moment.

    It is bound with mode 0 and gets its mode once it listens: no client is refused by a socket that does not
    listen yet, or accepted against its permissions. A socket file without a listener is replaced, one with a
    listener is not. Raises SystemFailure.
    """
    where = f"unix:{path}"
    uid, gid = _user(owner, where), _group(group, where)
    try:
        _refuse_if_taken(path, where)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise refused(f"{where} cannot be bound", error) from error
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        mask = os.umask(0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        sock.listen(backlog)
        _grant(sock, mode, uid, gid)
    except OSError as error:
        if sock.getsockname():
            os.unlink(path)
        sock.close()
        raise SystemFailure(
            f"{where} cannot be bound: {error.strerror}", hint=_unix_hint(error, path)
        ) from error
    return sock


_files: WeakKeyDictionary[socket.socket, tuple[int, int]] = WeakKeyDictionary()
"""Device and inode of a socket's file when it was first opened: no system call returns them for a socket."""


@contextlib.contextmanager
def _file_of(sock: socket.socket) -> Iterator[str]:
    """Provide a path to the file of a bound Unix socket that later changes of its directory cannot redirect.

    Another user with write permission may have replaced the file. Raises OSError.
    """
    descriptor = os.open(sock.getsockname(), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        there = os.fstat(descriptor)
        identity = (there.st_dev, there.st_ino)
        is_ours = stat.S_ISSOCK(there.st_mode) and there.st_nlink == 1
        if not is_ours or _files.setdefault(sock, identity) != identity:
            raise OSError(errno.EBADF, "another file is at its path")
        path = f"/proc/self/fd/{descriptor}"
        # Without /proc there is only the path.
        yield path if os.path.exists(path) else sock.getsockname()
    finally:
        os.close(descriptor)


def _grant(sock: socket.socket, mode: int, uid: int, gid: int) -> None:
    with _file_of(sock) as path:
        if uid != -1 or gid != -1:
            os.chown(path, uid, gid)
        os.chmod(path, mode)


def set_access(sock: socket.socket, mode: int, owner: str, group: str) -> None:
    """Change the mode and the owner of the file of a Unix socket.

    Raises OSError, also if another file is at its path, and SystemFailure for an unknown name.
    """
    where = f"unix:{sock.getsockname()}"
    _grant(sock, mode, _user(owner, where), _group(group, where))


def set_members(sock: socket.socket, mode: int, group: str) -> None:
    """Change the mode of a Unix socket's file, and give another group (empty: none) the group's permissions.

    This is an entry of its access control list: unlike for chown, the owner need not be a member of the group.
    Raises OSError, and SystemFailure for an unknown group. acl(5)
    """
    members = mode >> 3 & 7
    entries = [(_ACL_USER_OBJ, mode >> 6, _ACL_NOBODY), (_ACL_GROUP_OBJ, members, _ACL_NOBODY)]
    if group:
        gid = _group(group, f"unix:{sock.getsockname()}")
        entries += [(_ACL_GROUP, members, gid), (_ACL_MASK, members, _ACL_NOBODY)]
    entries.append((_ACL_OTHER, mode & 7, _ACL_NOBODY))
    packed = b"".join(struct.pack("<HHI", *entry) for entry in entries)
    with _file_of(sock) as path:
        os.setxattr(path, "system.posix_acl_access", struct.pack("<I", _ACL_VERSION) + packed)


def close_unix(sock: socket.socket) -> None:
    """Close a listening socket and remove its file, unless another socket is there now.

    No system call returns the inode of a socket's file. After the close, a connection to this socket's file is
    refused; one to another process's socket is not.
    """
    path = sock.getsockname()
    sock.close()
    if not path or isinstance(path, bytes):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(path)
        except OSError:
            pass  # removed, or another process listens there and its backlog is full


def _refuse_if_taken(path: str, where: str) -> None:
    try:
        there = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise SystemFailure(
            f"{where}: a file that is not a socket exists there",
            hint=f"move {path} away, or choose another",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # left by a process that has exited
        except BlockingIOError:
            pass  # another process listens; its backlog is full
        except OSError as error:
            raise SystemFailure(f"{where}: {error.strerror}") from error
    raise SystemFailure(
        f"{where} cannot be bound: another process listens there",
        hint="stop it (ss -lxp shows it), or choose another path",
    )


def _unix_hint(error: OSError, path: str) -> str:
    folder = os.path.dirname(path)
    if error.errno == errno.ENOENT:
        return f"make the directory {folder}, for example by RuntimeDirectory= in the unit"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return (
            f"the user that preforkd runs as must be able to write to {folder}, and to give the "
            "socket to that owner and group"
        )
    return ""


def _user(name: str, where: str) -> int:
    if not name or name.isdecimal():
        return int(name or -1)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise SystemFailure(f"{where}: unknown user {name!r}", hint="see owner") from None


def _group(name: str, where: str) -> int:
    if not name or name.isdecimal():
        return int(name or -1)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise SystemFailure(f"{where}: unknown group {name!r}", hint="see group") from None
