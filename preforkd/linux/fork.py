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
    """In the grandchild: it goes on when its parent is the subreaper, and that one was told."""

    go: int
    middle: int
    """The process between, which may still be the parent."""

    def wait(self) -> None:
        """Return when the process that forked has closed its end, or has ended."""
        os.read(self.go, 1)
        os.close(self.go)
        # One that has ended has not waited for the one between, who may still be our parent: until it
        # is the subreaper, that one would not believe a word of ours.
        if os.getppid() == self.middle:
            _wait_for_end(self.middle)


def double_fork() -> tuple[int, int] | ForkedChild:
    """Return, in this process, the grandchild's pid and the descriptor whose closing lets it go.

    Raises OSError when either fork is refused; nothing is left behind then.
    """
    with contextlib.suppress(Exception):  # the application may have put anything in their place
        sys.stdout.flush()
        sys.stderr.flush()
    go_read, go_write = os.pipe()
    pid_read, pid_write = os.pipe()
    try:
        middle = _fork()
    except OSError:
        _close((go_read, go_write, pid_read, pid_write))
        raise
    if middle == 0:
        _close((pid_read, go_write))
        between = os.getpid()
        if _middle(pid_write):
            os.close(pid_write)
            return ForkedChild(go_read, between)
    _close((pid_write, go_read))
    answer = os.read(pid_read, 32)
    os.close(pid_read)
    _, status = os.waitpid(middle, 0)
    number = int(answer or b"0")
    if number <= 0:
        os.close(go_write)
        code = os.waitstatus_to_exitcode(status)
        how = f"the child that was to fork ended with {code}"
        raise OSError(-number, os.strerror(-number) if number else how)
    return number, go_write


def _wait_for_end(pid: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        os.close(descriptor)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 and newer warn of threads; who calls this has named them to the administrator.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _middle(pid_write: int) -> bool:
    # Between the forks: tells the first process the grandchild's pid, or the errno as a negative
    # number, and is gone.
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
