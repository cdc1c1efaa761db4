"""What a process has used."""

import os
import resource
import subprocess
import sys

import pytest

from preforkd.linux import usage


def test_cpu_time_is_that_of_the_process():
    """It equals what the process reads itself, to a tick."""
    while sum(os.times()[:2]) < 0.05:
        sum(range(1000))
    before = sum(os.times()[:2])
    seen = usage.cpu_seconds(os.getpid())
    assert before - 0.03 <= seen <= sum(os.times()[:2]) + 0.03


def test_descriptors_are_counted():
    """One more for one that is opened."""
    before = usage.descriptors(os.getpid())
    descriptor = os.open("/dev/null", os.O_RDONLY)
    assert usage.descriptors(os.getpid()) == before + 1
    os.close(descriptor)


def test_the_limit_is_the_soft_one():
    """It equals getrlimit(2)."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert usage.descriptor_limit(os.getpid()) == soft


def test_a_process_that_has_ended_is_an_error():
    """OSError, which the caller expects."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    for reading in (usage.cpu_seconds, usage.descriptors, usage.descriptor_limit):
        with pytest.raises(OSError):
            reading(done.pid)
