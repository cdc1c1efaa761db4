"""Reading the configuration in a child process of the master, at the start and at each reload.

The modules that read it (YAML, the reader, its grammars) would be a tenth of the master's memory. The child
imports them, and its memory is freed when it exits. `load` blocks: the master calls it at the start, and in a
thread at a reload (`preforkd.background`).
"""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Mapping

import msgspec

from preforkd.config.configuration import Configuration
from preforkd.config.encoding import utf8
from preforkd.errors import (
    ConfigurationError,
    InternalError,
    Place,
    Problem,
    SystemFailure,
    refused,
)

TIMEOUT = 20.0
"""Seconds after which the child is killed, for example because a file server does not answer."""

_CHILD = """\
import os, sys
sys.path[:] = sys.argv[1:]
try:
    from preforkd.config.sources import run_child
except Exception as error:
    sys.exit(f'preforkd: the configuration cannot be read: {error!r}')
run_child()
sys.stdout.flush()
os._exit(0)  # without waiting for threads that a .pth file or sitecustomize has started
"""


class ReadRequest(msgspec.Struct, frozen=True):
    """The arguments of `preforkd.config.sources.load`."""

    path: str | None
    options: dict[str, str | list[str]]
    credentials: str | None
    """The directory of credentials that systemd passes; None: it passes none."""


class ReadResult(msgspec.Struct, frozen=True):
    """The configuration, or its problems."""

    configuration: Configuration | None = None
    problems: list[Problem] = []


def load(
    path: str | None, options: Mapping[str, str | list[str]], credentials: str | None
) -> Configuration:
    """Return the settings of a file and of options, as `preforkd.config.sources.load` does.

    Raises ConfigurationError with all problems, SystemFailure if the child cannot be started or does not
    end in time, InternalError if it ends without a result.
    """
    request = msgspec.msgpack.encode(_request(path, options, credentials))
    try:
        data = _run_child(request)
    except OSError as error:
        raise refused("cannot start a process to read the configuration", error) from error
    if data is None:
        raise SystemFailure(
            f"the configuration was not read within {TIMEOUT:g} s: {path or 'the default'}"
        )
    try:
        result = msgspec.msgpack.decode(data, type=ReadResult)
    except msgspec.DecodeError as error:
        # Its exit status may be lost: the master reaps unknown children as well.
        raise InternalError(
            "the process that reads the configuration exited without a result"
        ) from error
    if result.configuration is None:
        raise ConfigurationError(result.problems)
    return result.configuration


def _request(
    path: str | None, options: Mapping[str, str | list[str]], credentials: str | None
) -> ReadRequest:
    problems: list[Problem] = []

    def checked(setting: str, text: str) -> str:
        try:
            return utf8(text)
        except ValueError as error:
            hint = "rename it, or name a symbolic link to it"
            problems.append(Problem(Place("command line"), setting, str(error), hint))
            return ""

    found = {
        setting: [checked(setting, text) for text in value]
        if isinstance(value, list)
        else checked(setting, value)
        for setting, value in options.items()
    }
    path = None if path is None else checked("--config", path)
    if problems:
        raise ConfigurationError(problems)
    return ReadRequest(path, found, credentials)


def _run_child(request: bytes) -> bytes | None:
    # None: the child did not exit in time. Without the module subprocess, which takes half a MB with its
    # imports. Request and result are files in memory: neither process can block on the other.
    with (
        open(os.memfd_create("preforkd-request"), "wb") as source,
        open(os.memfd_create("preforkd-result"), "rb") as output,
    ):
        source.write(request)
        source.flush()
        source.seek(0)  # the child shares the offset
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", _CHILD, *sys.path],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
            ],
            # A signal to all processes of the service, or Ctrl-C, is for the master to handle.
            setsigmask=signal.valid_signals(),
            setpgroup=0,
        )
        ended = _wait_for_end(pid)
        output.seek(0)
        return output.read() if ended else None


def _wait_for_end(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True  # the master has reaped it, as it does unknown children
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = False
    try:
        ended = bool(poll.poll(TIMEOUT * 1000))
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if not ended:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
    return ended
