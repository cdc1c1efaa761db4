"""Timers as descriptors."""

import os
import select
import threading
import time

import pytest

from preforkd.linux.timerfd import Timer


def test_a_timer_expires_once_and_not_before():
    """After its time; then it is silent until it is armed again."""
    timer = Timer()
    assert not os.get_inheritable(timer.fileno())
    for _ in range(2):
        begun = time.monotonic()
        timer.arm(0.02)
        timer.wait()
        assert time.monotonic() - begun >= 0.02
        assert not select.select([timer.fileno()], [], [], 0)[0]
    timer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        timer.arm(1)


def test_a_timer_is_moved_while_a_thread_waits():
    """Closer or further; the thread is woken once."""
    timer, woken = Timer(), threading.Semaphore(0)
    thread = threading.Thread(target=lambda: (timer.wait(), woken.release()))
    timer.arm(3600)
    thread.start()
    begun = time.monotonic()
    timer.arm(1e-9)
    assert woken.acquire(timeout=20)
    assert time.monotonic() - begun < 3600
    thread.join()
    timer.close()
