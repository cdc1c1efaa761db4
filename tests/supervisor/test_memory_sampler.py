"""Readings of memory in a thread, one batch at a time, shared by requests within a second."""

import os
import subprocess
import sys
import threading

import pytest

from preforkd.linux import memory
from preforkd.linux.memory import Usage
from preforkd.loop import Loop
from preforkd.supervisor import memory_sampler as module
from preforkd.supervisor.memory_sampler import MemorySampler


class Scene(MemorySampler):
    """A sampler, and a loop that runs until a callback is called."""

    def __init__(self):
        self.loop = Loop()
        super().__init__(self.loop)
        self.loop.call_later(20, pytest.fail, "no callback was called")

    def readings_of(self, pids):
        """Return the readings that a request gets."""
        readings = []

        def callback(reading):
            readings.append(reading)
            self.loop.stop()

        self.read(pids, callback)
        self.loop.run()
        (reading,) = readings
        return reading


@pytest.fixture
def memory_sampler():
    """See the class."""
    scene = Scene()
    yield scene
    scene.loop.close()


@pytest.fixture
def slow(monkeypatch):
    """Readings that wait until they may; who read what in which thread is kept."""
    may, begun, reads = threading.Event(), threading.Event(), []

    def usage(pid):
        reads.append((pid, threading.current_thread()))
        begun.set()
        assert may.wait(10)
        if pid == 404:
            raise ProcessLookupError(3, "gone")
        return Usage(rss=9, pss=5, private=pid, anonymous=4, pss_files=1)

    monkeypatch.setattr(memory, "usage", usage)
    return may, begun, reads


GROWS = """
import mmap, sys
print("begun", flush=True)
sys.stdin.readline()
memory = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(b"x" * len(memory))
print("grown", flush=True)
sys.stdin.readline()
"""


def test_a_process_that_grows(memory_sampler):
    """A real reading; what a process takes after the first one is its growth."""
    command = [sys.executable, "-c", GROWS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdout.readline() == b"begun\n"
        memory_sampler.watch(child.pid)
        before = memory_sampler.readings_of([child.pid])[child.pid]
        child.stdin.write(b"\n")
        assert child.stdout.readline() == b"grown\n"
        memory_sampler._latest.clear()
        after = memory_sampler.readings_of([child.pid])[child.pid]
        child.stdin.close()
    assert memory_sampler.growth(child.pid, before) < 1 << 20
    assert memory_sampler.growth(child.pid, after) >= 15 << 20


def test_the_loop_goes_on_while_a_reading_takes_long(slow, memory_sampler):
    """The kernel may take its time: what else the loop has to do is done meanwhile."""
    may, _, reads = slow
    memory_sampler.loop.call_later(0.01, may.set)
    readings = memory_sampler.readings_of([1, 2])
    assert {pid: reading.private for pid, reading in readings.items()} == {1: 1, 2: 2}
    assert threading.main_thread() not in {thread for _, thread in reads}


def test_many_who_ask_at_once_cost_two_readings(slow, memory_sampler):
    """Those who ask while one is read share the next one; who asks soon after reads nothing."""
    may, begun, reads = slow
    answers = []
    memory_sampler.read([1], answers.append)
    assert begun.wait(10)
    for _ in range(100):
        memory_sampler.read([1, 2], answers.append)
    may.set()
    memory_sampler.readings_of([2])
    assert len(answers) == 101
    assert all(answer[1].private == 1 for answer in answers)
    memory_sampler.read([1, 2], answers.append)
    assert {pid: reading.private for pid, reading in answers[-1].items()} == {1: 1, 2: 2}
    assert sorted(pid for pid, _ in reads) == [1, 1, 2]


def test_what_was_fresh_is_told_with_what_had_to_be_read(slow, memory_sampler, monkeypatch):
    """Also where it is not fresh any more when the rest has been read."""
    may, _, reads = slow
    may.set()
    memory_sampler.readings_of([1])
    now = memory_sampler.loop.time()
    monkeypatch.setattr(memory_sampler.loop, "time", lambda: now)
    memory_sampler.read(
        [1, 2], lambda readings: results.append(readings) or memory_sampler.loop.stop()
    )
    now, results = now + 2 * module.FRESH, []
    memory_sampler.loop.run()
    assert {pid: reading.private for pid, reading in results[0].items()} == {1: 1, 2: 2}
    assert [pid for pid, _ in reads] == [1, 2]


def test_what_has_ended_is_told_as_such(slow, memory_sampler):
    """Beside it, what lives is read."""
    may, _, _ = slow
    may.set()
    readings = memory_sampler.readings_of([404, 7])
    assert isinstance(readings[404], ProcessLookupError)
    assert readings[7].private == 7


def test_a_number_that_comes_again_begins_anew(slow, memory_sampler):
    """Growth is since the watch of the process that has the number now; unknown without one."""
    may, _, _ = slow
    may.set()
    usage = Usage(rss=0, pss=0, private=107, anonymous=0, pss_files=None)
    assert memory_sampler.growth(7, usage) is None
    memory_sampler._first[7] = 100
    assert memory_sampler.growth(7, usage) == 7
    memory_sampler.watch(7)
    memory_sampler.readings_of([8])
    assert memory_sampler.growth(7, usage) == 100


def test_first_readings_do_not_gather_for_ever(slow, memory_sampler, monkeypatch):
    """Beyond a number, those of processes that have ended are dropped."""
    may, _, _ = slow
    may.set()
    monkeypatch.setattr(module, "_MANY", 3)
    memory_sampler._first = {os.getpid(): 1, 2**22 + 1: 1, 2**22 + 2: 1, 2**22 + 3: 1}
    memory_sampler.watch(os.getpid())
    memory_sampler.readings_of([8])
    assert set(memory_sampler._first) == {os.getpid()}
