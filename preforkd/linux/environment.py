"""What of the environment the application may inherit."""

import os
from collections.abc import Mapping

_OURS = (
    "LISTEN_FDS",  # sockets that were passed to us, under numbers that mean something else there
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",  # an application that says READY=1 speaks for the whole service
    "WATCHDOG_USEC",  # and one that pings hides a master that hangs
    "WATCHDOG_PID",
    "FDSTORE",
    "MAINPID",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",  # the whole service's pressure, for the master to answer
    "MEMORY_PRESSURE_WRITE",
    "SYSTEMD_EXEC_PID",  # tells a process whether it is the one that systemd started
)


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what would let a child take itself for the service.

    What the application may need stays: INVOCATION_ID, JOURNAL_STREAM, RUNTIME_DIRECTORY,
    CREDENTIALS_DIRECTORY and their like. systemd.exec(5), sd_listen_fds(3)
    """
    return {name: value for name, value in environ.items() if name not in _OURS}


def working_directory(environ: Mapping[str, str]) -> str:
    """Return the current directory, by a path that can be entered again; empty if there is none.

    The shell's word ($PWD) counts where it is the same directory: it keeps symbolic links, so that the
    path may lead to another directory tomorrow. getcwd(3) does not.
    """
    told = environ.get("PWD", "")
    try:
        path = told if told.startswith("/") and os.path.samefile(told, ".") else os.getcwd()
    except FileNotFoundError:
        try:
            path = os.getcwd()
        except OSError:
            return ""
    except OSError:
        return ""
    return path if os.access(path, os.X_OK) else ""
