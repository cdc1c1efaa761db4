"""Forking a process whose parent is the subreaper."""

import ctypes
import errno
import gc
import os
import select
import signal

import pytest

from preforkd.linux import fork

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def subreaper():
    """Orphans become children of this process, as they do of the master, for the time of the test."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descriptors():
    """Return what is open here, but for what listing it takes and what other tests left as garbage."""
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))[:-1]


def forked(body):
    """Fork a grandchild that does this and ends with what it returns; return its pid and `go`."""
    born = fork.double_fork()
    if isinstance(born, fork.ForkedChild):
        status = 99
        try:
            born.wait()
            status = body()
        finally:
            os._exit(status)
    return born


def test_the_grandchild_is_a_child_of_the_subreaper(subreaper):
    """Its pid is the one that was returned, and it goes on only when it is let go."""
    before = descriptors()
    parent = os.getpid()
    pid, go = forked(lambda: 7 if os.getppid() == parent else 1)
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is None
    os.close(go)
    assert os.waitpid(pid, 0) == (pid, 7 << 8)
    assert descriptors() == before


def test_it_goes_on_when_the_one_that_forked_has_ended(subreaper):
    """The original process exits without closing the pipe: the child starts with the subreaper as its parent."""
    reader, writer = os.pipe()
    parent = os.getpid()
    intermediate = os.fork()
    if intermediate == 0:
        pid, _go = forked(lambda: 7 if os.getppid() == parent else 1)
        os.write(writer, str(pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    pid = int(os.read(reader, 32))
    os.waitpid(intermediate, 0)
    assert os.waitpid(pid, 0) == (pid, 7 << 8)
    os.close(reader)
    os.close(writer)


def test_it_waits_for_the_one_between(subreaper):
    """The child does not start while the intermediate process is its parent."""
    pids, telling = os.pipe()
    gate, opening = os.pipe()
    ours, leave = os.getpid(), os._exit
    forker = os.fork()
    if forker == 0:
        os.close(opening)

        def leave_later(status):
            os.write(telling, f"{-os.getpid():8}".encode())
            os.read(gate, 1)
            leave(status)

        os._exit = leave_later
        os.waitpid = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        born = fork.double_fork()
        os.write(telling, f"{os.getpid():8}".encode())
        born.wait()
        os.write(telling, b"goes on")
        leave(7 if os.getppid() == ours else 1)
    os.waitpid(forker, 0)
    between, pid = sorted(int(os.read(pids, 8)) for _ in range(2))
    # What does not happen has no event to wait for; one that is too quick would be seen mostly.
    assert not select.select([pids], [], [], 0.3)[0]
    os.close(opening)
    os.waitpid(-between, 0)  # we are its parent by now
    assert os.waitpid(pid, 0) == (pid, 7 << 8)
    for descriptor in (pids, telling, gate):
        os.close(descriptor)


@pytest.mark.parametrize("refused", ["first", "second"])
def test_a_fork_that_the_kernel_refuses_leaves_nothing_behind(monkeypatch, refused):
    """Whichever of the two it is: its errno, no child, no descriptor."""
    ours, real, born = os.getpid(), os.fork, []
    error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def refusing():
        if (os.getpid() == ours) == (refused == "first"):
            raise error
        born.append(real())
        return born[-1]

    monkeypatch.setattr(os, "fork", refusing)
    before = descriptors()
    with pytest.raises(BlockingIOError) as caught:
        fork.double_fork()
    assert caught.value.errno == errno.EAGAIN
    assert descriptors() == before
    assert len(born) == (refused == "second")
    for pid in born:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def test_a_killed_intermediate_process_is_an_error(monkeypatch):
    """By the OOM killer, for example: the error has its exit status."""
    ours, real = os.getpid(), os.fork

    def dying():
        if os.getpid() != ours:
            os.kill(os.getpid(), signal.SIGKILL)
        return real()

    monkeypatch.setattr(os, "fork", dying)
    before = descriptors()
    with pytest.raises(OSError, match="the intermediate process ended with -9"):
        fork.double_fork()
    assert descriptors() == before
