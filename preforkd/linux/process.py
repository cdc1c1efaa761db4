"""Children by pidfd: opened, signalled and reaped, so that no signal goes to a reused pid.

pidfd_open(2), waitid(2), prctl(2)
"""

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Collection
from types import FrameType
from typing import NoReturn

from msgspec import Struct

from preforkd.linux.libc import LIBC, checked

logger = logging.getLogger("preforkd.worker")

_THREADS_LOGGED_AFTER = 1.0
"""Seconds after which the threads that delay an exit are logged."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OOM_SCORE = 200
"""Added to a worker's oom_score_adj; it counts like a fifth of all memory."""
_ENDED = os.WEXITED | os.WNOHANG

MASTER_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals on which only the master acts if they are sent to all processes of the service, as systemctl kill,
logrotate and terminals do. Not SIGTTIN and SIGTTOU, which the kernel sends, too."""


class ExitReport(Struct, frozen=True):
    """How a process ended: an exit status, or a signal."""

    code: int | None
    signal: int | None = None
    core: bool = False

    def describe(self) -> str:
        """Return a description for a message."""
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            return f"killed by {name}" + (" (core dumped)" if self.core else "")
        if self.code is None:
            return "ended; exit status unknown"
        return f"exit status {self.code}"


def set_child_subreaper() -> None:
    """Make orphaned descendants children of this process. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(number: int) -> None:
    """Make the kernel send this process a signal when its parent exits; 0: none. Raises OSError.

    Children of this process do not inherit it.
    """
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> None:
    checked(LIBC.prctl(option, value, 0, 0, 0))


def ignore_master_signals() -> None:
    """Handle `MASTER_SIGNALS` without effect, and unblock them.

    The master spawns its children with these signals blocked, so that none is killed before this call.
    Not SIG_IGN, which programs that the application executes would inherit.
    """
    for number in MASTER_SIGNALS:
        signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTER_SIGNALS)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def exit_process(status: int, *, run_exit_handlers: bool = True) -> NoReturn:
    """Exit after running the application's exit handlers (``run_exit_handlers``).

    The interpreter is not finalized: that would write to all shared pages of the heap, and does not expect
    immortal objects.
    """
    if run_exit_handlers:
        with contextlib.suppress(BaseException):
            _watch_threads()
        with contextlib.suppress(BaseException):
            # The application's module, not our copy: see preforkd.linux.unpatched.
            sys.modules["threading"]._shutdown()
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _watch_threads() -> None:
    # Most non-daemon threads end at once, as those of a ThreadPoolExecutor do.
    if not _non_daemon_threads():
        return
    watcher = threading.Timer(_THREADS_LOGGED_AFTER, _log_threads)
    watcher.daemon = True
    watcher.start()


def _non_daemon_threads() -> list[str]:
    module = sys.modules["threading"]  # as in `leave`
    main = module.main_thread()
    return [one.name for one in module.enumerate() if not one.daemon and one is not main]


def _log_threads() -> None:
    if names := _non_daemon_threads():
        logger.warning(
            "the exit waits for %d non-daemon thread(s): %s; end them in the hook worker_leaving, or start "
            "them with daemon=True",
            len(names),
            ", ".join(names),
        )


def open_child(pid: int) -> int:
    """Return a pidfd of a child, which may be a zombie; close-on-exec.

    Raises OSError: ProcessLookupError if there is no such process, ChildProcessError if it is not a child
    of this process.
    """
    pidfd = os.pidfd_open(pid)
    try:
        os.waitid(os.P_PIDFD, pidfd, _ENDED | os.WNOWAIT)
    except OSError:
        os.close(pidfd)
        raise
    return pidfd


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal; return False if the process has exited."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def stopped(pidfd: int) -> bool | None:
    """Return True if the child was stopped since the last call, False if it was continued, else None.

    SIGCHLD announces both.
    """
    answer = None
    flags = os.WSTOPPED | os.WCONTINUED | os.WNOHANG
    try:
        # One event of each kind may be pending, the older first.
        while (result := os.waitid(os.P_PIDFD, pidfd, flags)) is not None:
            answer = result.si_code != os.CLD_CONTINUED
    except ChildProcessError:
        pass
    return answer


def prefer_for_oom_kill(preferred: bool = True) -> None:
    """Make the OOM killer prefer this process to its parents, or (``preferred=False``) undo that.

    Does nothing if the score must not be changed. proc(5), /proc/pid/oom_score_adj
    """
    path = "/proc/self/oom_score_adj"
    with contextlib.suppress(OSError, ValueError):
        with open(path) as file:
            score = int(file.read()) + (_OOM_SCORE if preferred else -_OOM_SCORE)
        with open(path, "w") as file:
            file.write(str(max(-1000, min(1000, score))))


def reap(pidfd: int) -> ExitReport | None:
    """Reap a child and return how it ended; None while it runs."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, _ENDED)
    except ChildProcessError:
        return ExitReport(None)
    return None if result is None else _report(result)


def reap_unknown(known: Collection[int]) -> list[tuple[int, ExitReport]]:
    """Reap children that have exited and are not in ``known``; return each pid and how it ended.

    waitid(2) returns any one child that has exited; if it is a known one, which stays a zombie, it would be
    returned forever: then all children are examined.
    """
    reaped: list[tuple[int, ExitReport]] = []
    while (pid := _ended_child()) is not None:
        if pid in known:
            reaped += [(other, _reap_pid(other)) for other in _zombies() if other not in known]
            break
        reaped.append((pid, _reap_pid(pid)))
    return reaped


def _ended_child() -> int | None:
    try:
        result = os.waitid(os.P_ALL, 0, _ENDED | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if result is None else result.si_pid


def _zombies() -> list[int]:
    found: list[int] = []
    for pid in _children():
        try:
            result = os.waitid(os.P_PID, pid, _ENDED | os.WNOWAIT)
        except ChildProcessError:
            continue
        if result is not None:
            found.append(pid)
    return found


def _children() -> list[int]:
    pids: list[int] = []
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:  # no /proc: children are found one at a time
        return pids
    for thread in threads:
        # The thread may have exited, and the kernel may be built without this file.
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            pids += map(int, file.read().split())
    return pids


def _reap_pid(pid: int) -> ExitReport:
    try:
        result = os.waitid(os.P_PID, pid, _ENDED)
    except ChildProcessError:  # another thread has reaped it
        return ExitReport(None)
    return ExitReport(None) if result is None else _report(result)


def _report(result: os.waitid_result) -> ExitReport:
    if result.si_code == os.CLD_EXITED:
        return ExitReport(result.si_status)
    return ExitReport(None, result.si_status, result.si_code == os.CLD_DUMPED)
