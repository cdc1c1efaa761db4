"""The interpreter that loads the application: which program it is, and why it cannot be used."""

import errno
import os
import sys

from preforkd.config.encoding import native
from preforkd.config.settings import Settings
from preforkd.errors import Blame, Failure, shortage
from preforkd.supervisor import installed_code

UNUSABLE, OTHER_VERSION, TOO_OLD = 97, 98, 99
"""Exit statuses of a zygote whose interpreter cannot import preforkd's libraries; that is, of another minor
version; that is older than preforkd supports."""
LIBRARIES = ("msgspec",)
"""Third-party libraries that a zygote and its workers import."""
SHORTAGES = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of fork(2) and posix_spawn(3) for which the application's settings are not to blame."""


def executable(settings: Settings) -> str:
    """Return the program: ``app.python``, ``bin/python`` if that is a virtual environment, or our own."""
    python = settings.app.python
    if python and os.path.isdir(native(python)):
        return os.path.join(python, "bin/python")
    return python or sys.executable


def not_executable(settings: Settings, error: OSError) -> Failure:
    """Return the failure of an interpreter that cannot be executed."""
    if error.errno in SHORTAGES:
        return Failure(
            Blame.SYSTEM,
            f"cannot start the zygote: {error.strerror}",
            hint=shortage(error) or "TasksMax= and the ulimits of the service limit its processes",
        )
    if error.errno == errno.E2BIG:
        return Failure(
            Blame.CONFIGURATION,
            "the environment of the application is larger than the system allows (execve(2))",
            hint="it consists of the service's (Environment=, EnvironmentFile=) and of app.environment",
        )
    blame = Blame.CONFIGURATION if settings.app.python else Blame.SYSTEM
    return Failure(
        blame,
        f"app.python: {executable(settings)} cannot be executed: {error.strerror}",
        hint="name a Python interpreter, 3.11 or newer, or the directory of a virtual environment",
    )


def failure_of(settings: Settings, status: int | None) -> Failure | None:
    """Return why the interpreter cannot be used; None if this exit status of a zygote has another reason."""
    python = executable(settings)
    if status == TOO_OLD:
        reason = f"app.python: {python} is older than Python 3.11; the log has its version"
        hint = "make the virtual environment with Python 3.11 or newer"
        return Failure(Blame.CONFIGURATION, reason, hint=hint)
    if status not in {UNUSABLE, OTHER_VERSION}:
        return None
    if installed_code.changed():
        reason = f"{python} cannot import preforkd any more; the log has its error"
        return Failure(Blame.SYSTEM, reason, hint=installed_code.HINT)
    reason = f"app.python: {python} cannot import preforkd's libraries; the log has its error"
    hint = f"{python} -m pip install {' '.join(LIBRARIES)}"
    if status == OTHER_VERSION:
        ours = ".".join(map(str, sys.version_info[:2]))
        reason += (
            f". They are compiled for Python {ours}, which runs preforkd, and it is another version"
        )
    return Failure(Blame.CONFIGURATION, reason, hint=hint)
