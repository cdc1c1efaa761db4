"""Where the control socket is: one rule for the master, which binds it, and preforkctl, which connects.

- ``control.socket`` in the configuration, ``--socket`` of preforkctl: that path.
- $RUNTIME_DIRECTORY, which systemd sets for a unit with RuntimeDirectory=: `NAME` in it.
- A master without either, such as one started from a shell: `NAME` and its pid, in the directory of its
  user. That is ``preforkd`` in $XDG_RUNTIME_DIR or /run/user/UID; if neither exists, /run/preforkd.0 for
  root, /tmp/preforkd.UID for others.

preforkctl without a path or a name never falls back from one of these to another.
"""

import contextlib
import os
import re
import socket
import stat
from collections.abc import Mapping

from preforkd.errors import SystemFailure

NAME = "io.preforkd.Manager"
_SERVICES = "/run"
_SERVICE = re.compile(r"preforkd(?:-(.+))?")
_OF_A_RUN = re.compile(re.escape(NAME) + r"(?:\.([0-9]+))?")


def of_service(instance: str = "") -> str:
    """Return the path of the system's preforkd.service, or of preforkd@INSTANCE.service."""
    return f"{_SERVICES}/preforkd{instance and '-'}{instance}/{NAME}"


def instance_of(path: str) -> str | None:
    """Return the instance that has this path, "" for preforkd.service; None if no service has it."""
    folder, name = os.path.split(path)
    parent, service = os.path.split(folder)
    matched = _SERVICE.fullmatch(service)
    if parent != _SERVICES or name != NAME or matched is None:
        return None
    return matched[1] or ""


def in_runtime_directory(environ: Mapping[str, str]) -> str | None:
    """Return the path in $RUNTIME_DIRECTORY, the first of several; None where it is not set."""
    folder = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return f"{folder}/{NAME}" if folder else None


def to_bind(setting: str, environ: Mapping[str, str]) -> str | None:
    """Return where a master binds its socket, and create its directory; None for ``control.socket: off``.

    Raises SystemFailure if the directory cannot be created, or others may write to it.
    """
    if setting == "off":
        return None
    path = setting or in_runtime_directory(environ)
    if path is not None:
        _make(os.path.dirname(path) or ".", 0o755)
        return path
    uid = os.geteuid()
    folder = next((f"{home}/preforkd" for home in _homes(uid, environ)), _last_resort(uid))
    _make(folder, 0o700)
    there = os.lstat(folder)
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != uid or there.st_mode & 0o022:
        raise SystemFailure(
            f"{folder} is not a directory that only this user can write to",
            hint="remove it, or name another path by control.socket",
        )
    _remove_stale(folder)
    return f"{folder}/{NAME}.{os.getpid()}"


def running(environ: Mapping[str, str]) -> list[str]:
    """Return the sockets on which a master of this user answers; for root also those of the system."""
    if path := in_runtime_directory(environ):
        return [path]
    uid = os.geteuid()
    folders = [_last_resort(uid)]
    for home in _homes(uid, environ):
        folders += _services(home)
    if uid == 0:
        folders += services()
    return [path for folder in folders for path in _sockets(folder) if answers(path)]


def services() -> list[str]:
    """Return the existing runtime directories of the system's services."""
    return _services(_SERVICES)


def answers(path: str) -> bool:
    """Return whether a process listens there, even if it refuses this user or its backlog is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (PermissionError, BlockingIOError):
            return True
        except OSError:
            return False
    return True


def _homes(uid: int, environ: Mapping[str, str]) -> list[str]:
    # sudo may leave the variable of the calling user.
    named = dict.fromkeys([environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"])
    return [home for home in named if home and _is_own(home, uid)]


def _is_own(folder: str, uid: int) -> bool:
    try:
        there = os.stat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(there.st_mode) and there.st_uid == uid and os.access(folder, os.W_OK)


def _last_resort(uid: int) -> str:
    return f"/run/preforkd.{uid}" if uid == 0 else f"/tmp/preforkd.{uid}"  # noqa: S108 - see _make


def _make(folder: str, mode: int) -> None:
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        pass
    except OSError as error:
        raise SystemFailure(f"{folder} cannot be made: {error.strerror}") from error


def _services(parent: str) -> list[str]:
    return [f"{parent}/{name}" for name in _listed(parent) if _SERVICE.fullmatch(name)]


def _sockets(folder: str) -> list[str]:
    uid = os.geteuid()
    # Another user could have created that directory; do not connect to a socket in it.
    if folder == _last_resort(uid) and not _is_own(folder, uid):
        return []
    return [f"{folder}/{name}" for name in _listed(folder) if _OF_A_RUN.fullmatch(name)]


def _listed(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def _remove_stale(folder: str) -> None:
    # Sockets of masters that were killed, which nothing else removes.
    for path in _sockets(folder):
        matched = _OF_A_RUN.fullmatch(os.path.basename(path))
        if matched and matched[1] and not _lives(int(matched[1])) and not answers(path):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
