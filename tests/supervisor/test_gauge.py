"""The gauge: readings beside the loop, one at a time, and shared by all who ask at once."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from preforkd.linux import memory
from preforkd.linux.memory import Usage
from preforkd.supervisor import gauge as module
from preforkd.supervisor.gauge import Gauge


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


def test_a_process_that_grows():
    """A real reading; what a process takes after the first one is its growth."""

    async def live(child):
        gauge = Gauge()
        assert child.stdout.readline() == b"begun\n"
        gauge.watch(child.pid)
        before = (await gauge.read([child.pid]))[child.pid]
        child.stdin.write(b"\n")
        assert child.stdout.readline() == b"grown\n"
        gauge._latest.clear()
        after = (await gauge.read([child.pid]))[child.pid]
        return gauge.growth(child.pid, before), gauge.growth(child.pid, after)

    command = [sys.executable, "-c", GROWS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        before, after = asyncio.run(live(child))
        child.stdin.close()
    assert before < 1 << 20
    assert after >= 15 << 20


def test_the_loop_goes_on_while_a_reading_takes_long(slow):
    """The kernel may take its time: what else the loop has to do is done meanwhile."""
    may, begun, reads = slow

    async def live():
        gauge = Gauge()
        asking = asyncio.create_task(gauge.read([1, 2]))
        await asyncio.to_thread(begun.wait, 10)
        assert not asking.done()
        may.set()
        return await asking

    readings = asyncio.run(live())
    assert {pid: reading.private for pid, reading in readings.items()} == {1: 1, 2: 2}
    assert threading.main_thread() not in {thread for _, thread in reads}


def test_many_who_ask_at_once_cost_two_readings(slow):
    """Those who ask while one is read share the next one; who asks soon after reads nothing."""
    may, begun, reads = slow

    async def live():
        gauge = Gauge()
        first = asyncio.create_task(gauge.read([1]))
        await asyncio.to_thread(begun.wait, 10)
        others = [asyncio.create_task(gauge.read([1, 2])) for _ in range(100)]
        gone = asyncio.create_task(gauge.read([2]))
        await asyncio.sleep(0)
        gone.cancel()
        may.set()
        answers = await asyncio.gather(first, *others)
        assert all(answer[1].private == 1 for answer in answers)
        await gauge.read([1, 2])
        return gauge

    asyncio.run(live())
    assert sorted(pid for pid, _ in reads) == [1, 1, 2]


def test_what_has_ended_is_told_as_such(slow):
    """Beside it, what lives is read."""
    may, _, _ = slow
    may.set()
    readings = asyncio.run(Gauge().read([404, 7]))
    assert isinstance(readings[404], ProcessLookupError)
    assert readings[7].private == 7


def test_a_number_that_comes_again_begins_anew(slow):
    """Growth is since the watch of the process that has the number now; unknown without one."""
    may, _, _ = slow
    may.set()

    async def live():
        gauge = Gauge()
        usage = Usage(rss=0, pss=0, private=107, anonymous=0, pss_files=None)
        unknown = gauge.growth(7, usage)
        gauge._first[7] = 100
        known = gauge.growth(7, usage)
        gauge.watch(7)
        await gauge.read([8])
        await gauge.read([9])
        return unknown, known, gauge.growth(7, usage)

    assert asyncio.run(live()) == (None, 7, 100)


def test_first_readings_do_not_gather_for_ever(slow, monkeypatch):
    """Beyond a number, those of processes that have ended are dropped."""
    may, _, _ = slow
    may.set()
    monkeypatch.setattr(module, "_MANY", 3)

    async def live():
        gauge = Gauge()
        gauge._first = {os.getpid(): 1, 2**22 + 1: 1, 2**22 + 2: 1, 2**22 + 3: 1}
        gauge.watch(os.getpid())
        await gauge.read([8])
        return set(gauge._first)

    assert asyncio.run(live()) == {os.getpid()}
