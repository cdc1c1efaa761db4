"""Children by pidfd."""

import os
import signal
import subprocess
import sys

import pytest

from preforkd.linux import process


def child(code):
    """Return the pid of a child that runs this code; unlike with Popen, only the test reaps it."""
    return os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)


def wait(pidfd):
    """Return the report of a child, waiting for its end."""
    import select

    select.select([pidfd], [], [], 30)
    return process.reap(pidfd)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("pass", "exit status 0"),
    ],
)
def test_an_exit_is_described(code, words):
    """Exit statuses and signals; while a child lives there is no report."""
    pidfd = process.open_child(child(code))
    assert wait(pidfd).describe() == words
    os.close(pidfd)


def test_signals_reach_the_child_and_no_later_process():
    """A signal to a child that has ended is refused by the kernel, not misdirected."""
    pidfd = process.open_child(child("import time; time.sleep(60)"))
    assert process.reap(pidfd) is None
    assert process.send_signal(pidfd, signal.SIGKILL)
    assert wait(pidfd).signal == signal.SIGKILL
    assert not process.send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def test_a_process_of_another_parent_is_no_child():
    """A pid of another process is refused, as is one without a process."""
    with pytest.raises(ChildProcessError):
        process.open_child(os.getpid())
    with pytest.raises(ProcessLookupError):
        process.open_child(2**22 - 1)


def test_unknown_children_are_reaped_and_known_ones_left():
    """A child that we know keeps its status, whichever ended first."""
    known = child("raise SystemExit(5)")
    pidfd = process.open_child(known)
    unknown = {child("pass") for _ in range(5)}
    for pid in (known, *unknown):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    # As process 1 of a container we may have orphans of others besides.
    reaped = {pid for pid, _ in process.reap_unknown({known})}
    assert reaped & {known, *unknown} == unknown
    assert process.reap(pidfd).code == 5
    assert not {known, *unknown} & {pid for pid, _ in process.reap_unknown(set())}
    os.close(pidfd)


def test_unknown_children_are_reaped_without_proc(monkeypatch):
    """Those that the kernel names before one that is known; behind it when that one is reaped."""

    def refuse(path):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "listdir", refuse)
    known = child("raise SystemExit(5)")
    pidfd = process.open_child(known)
    stranger = child("pass")
    for pid in (known, stranger):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    reaped = process.reap_unknown({known})
    assert process.reap(pidfd).code == 5
    reaped += process.reap_unknown(set())
    assert [pid for pid, _ in reaped if pid in {known, stranger}] == [stranger]
    os.close(pidfd)


def test_an_unknown_child_that_another_thread_has_reaped(monkeypatch):
    """Its exit status is unknown, which is no error."""
    gone = child("pass")
    os.waitid(os.P_PID, gone, os.WEXITED)
    ended = [gone, None]
    monkeypatch.setattr(process, "_ended_child", lambda: ended.pop(0))
    assert process.reap_unknown(set()) == [(gone, process.ExitReport(None))]


def test_orphans_come_to_the_subreaper():
    """A grandchild whose parent ends becomes ours."""
    code = """
import os, sys
from preforkd.linux import process
process.set_child_subreaper()
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.read(read, 1)
        os._exit(9)
    os._exit(0)
os.wait()
os.write(write, b"x")
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "9\n", done.stderr


def test_leaving_runs_exit_handlers_and_nothing_else():
    """atexit's functions run, output is written out, objects are not torn down; the status is kept."""
    code = (
        "import atexit, sys\n"
        "from preforkd.linux import process\n"
        "class Object:\n"
        "    def __del__(self): print('torn down', flush=True)\n"
        "one = Object()\n"
        "atexit.register(print, 'exit handler')\n"
        "atexit.register(lambda: 1 / 0)\n"
        "sys.stdout.write('text\\n')\n"
        "process.exit_process(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "text\nexit handler\n")
    assert "ZeroDivisionError" in done.stderr
