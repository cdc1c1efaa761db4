"""Reading the configuration in a process of its own, which then ends.

What reads it (YAML, the readers, the command line's defaults) is a tenth of the master's memory, and is
needed for a moment, at the start and at each reload.
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

PATIENCE = 20.0
"""Seconds after which a file that cannot be read to its end is given up."""

_CHILD = """\
import os, sys
sys.path[:] = sys.argv[1:]
try:
    from preforkd.config.sources import answer
except Exception as error:
    sys.exit(f'preforkd: the configuration cannot be read: {error!r}')
answer()
sys.stdout.flush()
os._exit(0)  # whatever threads the start of the interpreter has started
"""


class ReadRequest(msgspec.Struct, frozen=True):
    """What is to be read; see `preforkd.config.sources.load`."""

    path: str | None
    options: dict[str, str | list[str]]
    credentials: str | None
    """The directory that systemd passes."""


class ReadResult(msgspec.Struct, frozen=True):
    """What was read, or what is wrong with it."""

    loaded: Configuration | None = None
    problems: list[Problem] = []


def load(
    path: str | None, options: Mapping[str, str | list[str]], credentials: str | None
) -> Configuration:
    """Return the settings of a file and of options, as `preforkd.config.sources.load` does.

    Raises ConfigurationError with every problem there is, SystemFailure when no process can be had.
    """
    question = msgspec.msgpack.encode(_question(path, options, credentials))
    try:
        data = _ask(question)
    except OSError as error:
        raise refused("no process can be had to read the configuration", error) from error
    if data is None:
        raise SystemFailure(
            f"the configuration could not be read within {PATIENCE:g} s: {path or 'the default'}"
        )
    try:
        answer = msgspec.msgpack.decode(data, type=ReadResult)
    except msgspec.DecodeError as error:
        # Its exit status may be gone: the master reaps whom it does not know.
        raise InternalError("reading the configuration ended without a result") from error
    if answer.loaded is None:
        raise ConfigurationError(answer.problems)
    return answer.loaded


def _question(
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


def _ask(question: bytes) -> bytes | None:
    # None: the process has not ended in time. Not by the module subprocess, which is half a MB with what
    # it imports. Question and answer are files in memory: nobody waits for who reads or writes them.
    with (
        open(os.memfd_create("preforkd-question"), "wb") as asked,
        open(os.memfd_create("preforkd-answer"), "rb") as answered,
    ):
        asked.write(question)
        asked.flush()
        asked.seek(0)  # the child's position is the same
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", _CHILD, *sys.path],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, asked.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, answered.fileno(), 1),
            ],
            # Signals that are sent to all processes are the master's; a terminal's Ctrl-C, too.
            setsigmask=signal.valid_signals(),
            setpgroup=0,
        )
        ended = _wait_for_end(pid)
        answered.seek(0)
        return answered.read() if ended else None


def _wait_for_end(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True  # and the master has reaped it: it does whom it does not know
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = False
    try:
        ended = bool(poll.poll(PATIENCE * 1000))
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if not ended:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
    return ended
