"""Reading the configuration in a process of its own, which then ends.

What reads it (YAML, the readers, the command line's defaults) is a tenth of the master's memory, and is
needed for a moment, at the start and at each reload.
"""

import subprocess
import sys
from collections.abc import Mapping

import msgspec

from preforkd.config.loaded import Loaded
from preforkd.errors import ConfigurationError, InternalError, Problem, SystemFailure

PATIENCE = 20.0
"""Seconds after which a file that cannot be read to its end is given up."""

_CHILD = """\
import sys
sys.path[:] = sys.argv[1:]
from preforkd.config.sources import answer
answer()
"""


class Question(msgspec.Struct, frozen=True):
    """What is to be read; see `preforkd.config.sources.load`."""

    path: str | None
    options: dict[str, str | list[str]]
    credentials: str | None
    """The directory that systemd passes."""


class Answer(msgspec.Struct, frozen=True):
    """What was read, or what is wrong with it."""

    loaded: Loaded | None = None
    problems: list[Problem] = []


def load(
    path: str | None, options: Mapping[str, str | list[str]], credentials: str | None
) -> Loaded:
    """Return the settings of a file and of options, as `preforkd.config.sources.load` does.

    Raises ConfigurationError with every problem there is, SystemFailure when no process can be had.
    """
    question = msgspec.msgpack.encode(Question(path, dict(options), credentials))
    command = [sys.executable, "-c", _CHILD, *sys.path]
    try:
        # In a group of its own: a terminal's Ctrl-C is the master's.
        done = subprocess.run(
            command,
            input=question,
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
            process_group=0,
        )
    except OSError as error:
        raise SystemFailure(
            f"no process can be had to read the configuration: {error.strerror}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SystemFailure(
            f"the configuration could not be read within {PATIENCE:g} s: {path or 'the default'}"
        ) from error
    try:
        answer = msgspec.msgpack.decode(done.stdout, type=Answer)
    except msgspec.DecodeError as error:
        # Its exit status may be gone: the master reaps whom it does not know.
        raise InternalError("reading the configuration ended without a result") from error
    if answer.loaded is None:
        raise ConfigurationError(answer.problems)
    return answer.loaded
