"""Forking a process whose parent is not this one, but the nearest subreaper above.

fork(2), prctl(2) PR_SET_CHILD_SUBREAPER
"""

import contextlib
import os
import select
import sys
import warnings
from collections.abc import Iterable

from msgspec import Struct


class ForkedChild(Struct, frozen=True):
    """In the grandchild: `wait` before it does anything else."""

    start_pipe: int
    intermediate: int
    """Pid of the intermediate process, which may still be the parent."""

    def wait(self) -> None:
        """Return when the original process has closed its end of the pipe or has exited."""
        os.read(self.start_pipe, 1)
        os.close(self.start_pipe)
        # An original process that has exited did not wait for the intermediate one, which may still be our
        # parent. The master ignores messages of a process that is not its child.
        if os.getppid() == self.intermediate:
            _wait_for_end(self.intermediate)


def double_fork() -> tuple[int, int] | ForkedChild:
    """Fork twice; return, in this process, the grandchild's pid and the descriptor whose close starts it.

    Raises OSError if a fork is refused; no process is left then.
    """
    with contextlib.suppress(Exception):  # the application may have replaced them
        sys.stdout.flush()
        sys.stderr.flush()
    start_read, start_write = os.pipe()
    pid_read, pid_write = os.pipe()
    try:
        intermediate = _fork()
    except OSError:
        _close((start_read, start_write, pid_read, pid_write))
        raise
    if intermediate == 0:
        _close((pid_read, start_write))
        own_pid = os.getpid()
        if _intermediate(pid_write):
            os.close(pid_write)
            return ForkedChild(start_read, own_pid)
    _close((pid_write, start_read))
    answer = os.read(pid_read, 32)
    os.close(pid_read)
    _, status = os.waitpid(intermediate, 0)
    number = int(answer or b"0")
    if number <= 0:
        os.close(start_write)
        code = os.waitstatus_to_exitcode(status)
        how = f"the intermediate process ended with {code}"
        raise OSError(-number, os.strerror(-number) if number else how)
    return number, start_write


def _wait_for_end(pid: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        os.close(descriptor)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads; the caller has logged them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _intermediate(pid_write: int) -> bool:
    # Writes the grandchild's pid, or the errno as a negative number, to the original process, and exits.
    try:
        grandchild = _fork()
    except OSError as error:
        os.write(pid_write, str(-(error.errno or 1)).encode())
        os._exit(1)
    if grandchild == 0:
        return True
    os.write(pid_write, str(grandchild).encode())
    os._exit(0)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
