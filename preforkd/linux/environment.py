"""The environment and the working directory that the application inherits."""

import os
from collections.abc import Mapping

_OURS = (
    "LISTEN_FDS",  # for the master; the numbers are other files in a child
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",  # READY=1 of an application would be taken as the service's
    "WATCHDOG_USEC",  # a ping of an application would hide a master that hangs
    "WATCHDOG_PID",
    "FDSTORE",
    "MAINPID",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",  # for the master, which acts for the whole service
    "MEMORY_PRESSURE_WRITE",
    "SYSTEMD_EXEC_PID",  # identifies the process that systemd started
)


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables that are for the service's main process.

    Those that an application may need stay: INVOCATION_ID, JOURNAL_STREAM, RUNTIME_DIRECTORY,
    CREDENTIALS_DIRECTORY and their like. systemd.exec(5), sd_listen_fds(3)
    """
    return {name: value for name, value in environ.items() if name not in _OURS}


def working_directory(environ: Mapping[str, str]) -> str:
    """Return the path of the current directory; empty if it cannot be entered again.

    $PWD is preferred if it is the same directory: it keeps symbolic links, so that a reload follows a link that
    was changed. getcwd(3) does not.
    """
    pwd = environ.get("PWD", "")
    try:
        path = pwd if pwd.startswith("/") and os.path.samefile(pwd, ".") else os.getcwd()
    except FileNotFoundError:
        try:
            path = os.getcwd()
        except OSError:
            return ""
    except OSError:
        return ""
    return path if os.access(path, os.X_OK) else ""
