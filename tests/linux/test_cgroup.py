"""What the kernel counts."""

import os
import subprocess
import sys
import threading

from preforkd.linux.cgroup import OomKills, own_folder, wait_until_alone


def test_a_kill_for_want_of_memory_is_noticed_once(tmp_path):
    """The counter is compared with what it was; without one nothing is noticed."""
    events = tmp_path / "memory.events"
    assert not OomKills(str(tmp_path)).increased()
    events.write_text("low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n")
    kills = OomKills(str(tmp_path))
    assert not kills.increased()
    events.write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert kills.increased()
    assert not kills.increased()


def test_the_own_folder(tmp_path):
    """The line of version 2, wherever it stands."""
    membership = tmp_path / "cgroup"
    membership.write_text("1:name=systemd:/x\n0::/a.slice/b.service\n")
    assert own_folder(str(membership), "/x") == "/x/a.slice/b.service"
    membership.write_text("0::/\n")
    assert own_folder(str(membership), "/x") == "/x"
    assert own_folder(str(tmp_path / "none"), "/x") is None


def test_alone(tmp_path):
    """Without another process, or without version 2, the call returns at once."""
    assert wait_until_alone(60, str(tmp_path)) == []
    (tmp_path / "cgroup.procs").write_text(f"0\n{os.getpid()}\n")
    assert wait_until_alone(60, str(tmp_path)) == []


def test_others_are_waited_for_until_they_end(tmp_path):
    """It returns when a process exits, and after the timeout returns the pids that are left."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        procs = tmp_path / "cgroup.procs"
        procs.write_text(f"{os.getpid()}\n{child.pid}\n")
        assert wait_until_alone(0.05, str(tmp_path)) == [child.pid]

        def end():
            child.stdin.close()
            child.wait()
            procs.write_text(f"{os.getpid()}\n")

        ending = threading.Thread(target=end)
        ending.start()
        assert wait_until_alone(60, str(tmp_path)) == []
        ending.join()
    assert child.returncode is not None
