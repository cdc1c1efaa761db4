"""Children by pidfd: found, signalled and reaped, so that no signal goes to a recycled pid.

pidfd_open(2), waitid(2), prctl(2)
"""

import atexit
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Collection
from types import FrameType
from typing import NoReturn

from msgspec import Struct

logger = logging.getLogger("preforkd.worker")

_STAYS = 1.0
"""Seconds after which threads that an exit waits for are named."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_VICTIM = 200
"""What is added to a worker's oom_score_adj: a fifth of all memory."""
_ENDED = os.WEXITED | os.WNOHANG

MASTER_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that are the master's to act on when they are sent to all processes of the service, as systemctl
kill, logrotate and terminals do. Not SIGTTIN and SIGTTOU: those are the kernel's to send, too."""


class ExitReport(Struct, frozen=True):
    """How a process ended: an exit status, or a signal."""

    code: int | None
    signal: int | None = None
    core: bool = False

    def describe(self) -> str:
        """Return it in words."""
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            return f"killed by {name}" + (" (core dumped)" if self.core else "")
        if self.code is None:
            return "ended, nobody knows how"
        return f"exit status {self.code}"


def set_child_subreaper() -> None:
    """Make this process the parent of its descendants' orphans. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends; 0: none. Raises OSError.

    A child that this process forks does not inherit it.
    """
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def ignore_master_signals() -> None:
    """Do nothing about the signals that are the master's, and unblock them.

    The master spawns its children with these blocked: none is ended by one before it gets here.
    Handlers, not SIG_IGN: an ignored signal would stay ignored in programs that the application starts.
    """
    for number in MASTER_SIGNALS:
        signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTER_SIGNALS)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def exit_process(status: int, *, run_exit_handlers: bool = True) -> NoReturn:
    """End this process: the application's exit handlers run, unless they are not to.

    The interpreter's own tidying, which would write to every shared page of the heap just before it is
    given back, does not; nor would it find immortal objects as it expects them.
    """
    if run_exit_handlers:
        with contextlib.suppress(BaseException):
            _name_those_who_stay()
        with contextlib.suppress(BaseException):
            # The application's module, of which ours may have a copy: see preforkd.linux.unpatched.
            sys.modules["threading"]._shutdown()
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _name_those_who_stay() -> None:
    # Threads that are no daemons are waited for. Most end at once, as those of a pool of threads do.
    if not _staying():
        return
    watcher = threading.Timer(_STAYS, _log_those_who_stay)
    watcher.daemon = True
    watcher.start()


def _staying() -> list[str]:
    theirs = sys.modules["threading"]  # as in `leave`
    main = theirs.main_thread()
    return [one.name for one in theirs.enumerate() if not one.daemon and one is not main]


def _log_those_who_stay() -> None:
    if names := _staying():
        logger.warning(
            "the exit waits for %d non-daemon thread(s): %s; end them in the hook worker_leaving, or start "
            "them with daemon=True",
            len(names),
            ", ".join(names),
        )


def open_child(pid: int) -> int:
    """Return a pidfd of a child of ours, close-on-exec; a child that has ended is still one.

    Raises OSError: ProcessLookupError when there is no such process, ChildProcessError when it is
    not our child.
    """
    pidfd = os.pidfd_open(pid)
    try:
        os.waitid(os.P_PIDFD, pidfd, _ENDED | os.WNOWAIT)
    except OSError:
        os.close(pidfd)
        raise
    return pidfd


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal; False when the process has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def stopped(pidfd: int) -> bool | None:
    """Return whether the child was stopped (True) or goes on (False); None: neither since the last call.

    Its parent learns of it by SIGCHLD.
    """
    answer = None
    flags = os.WSTOPPED | os.WCONTINUED | os.WNOHANG
    try:
        # One of each may be waiting, the newer behind the older.
        while (result := os.waitid(os.P_PIDFD, pidfd, flags)) is not None:
            answer = result.si_code != os.CLD_CONTINUED
    except ChildProcessError:
        pass
    return answer


def prefer_for_oom_kill(preferred: bool = True) -> None:
    """Have the kernel take this process before its parents when memory is used up, or no more.

    Where the score may not be changed, nothing happens. proc(5), /proc/pid/oom_score_adj
    """
    path = "/proc/self/oom_score_adj"
    with contextlib.suppress(OSError, ValueError):
        with open(path) as file:
            score = int(file.read()) + (_VICTIM if preferred else -_VICTIM)
        with open(path, "w") as file:
            file.write(str(max(-1000, min(1000, score))))


def reap(pidfd: int) -> ExitReport | None:
    """Return how the child ended, and let the kernel forget it; None while it lives."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, _ENDED)
    except ChildProcessError:
        return ExitReport(None)
    return None if result is None else _report(result)


def reap_unknown(known: Collection[int]) -> list[tuple[int, ExitReport]]:
    """Reap children that have ended and are not known; return each pid and how it ended.

    The kernel names any one child that has ended, which may be a known one, over and over; then the
    list of children is gone through.
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
    except OSError:  # no /proc: those that have ended are found one by one
        return pids
    for thread in threads:
        # A thread may have ended meanwhile, and a kernel may keep no such list.
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            pids += map(int, file.read().split())
    return pids


def _reap_pid(pid: int) -> ExitReport:
    try:
        result = os.waitid(os.P_PID, pid, _ENDED)
    except ChildProcessError:  # who started it, in another thread, was faster
        return ExitReport(None)
    return ExitReport(None) if result is None else _report(result)


def _report(result: os.waitid_result) -> ExitReport:
    if result.si_code == os.CLD_EXITED:
        return ExitReport(result.si_status)
    return ExitReport(None, result.si_status, result.si_code == os.CLD_DUMPED)
