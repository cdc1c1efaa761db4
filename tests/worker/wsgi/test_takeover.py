"""The takeover thread: which thread runs the loop while the application blocks the worker."""

import math
import os
import threading
import time

import pytest

from preforkd.worker.wsgi.takeover import Takeover

TIMEOUT = 20


class Worker:
    """A loop that the test turns by hand, and its takeover thread."""

    def __init__(self):
        self.taken_over = threading.Semaphore(0)
        self.woken = threading.Event()
        self.by = None
        self.takeover = Takeover(self._run_loop, self.woken.set, enabled=True)

    def _run_loop(self):
        self.by = threading.current_thread().name
        self.taken_over.release()
        assert self.woken.wait(TIMEOUT)
        self.woken.clear()


@pytest.fixture
def worker():
    worker = Worker()
    worker.takeover.reacquire()
    yield worker
    worker.takeover.end()


def test_there_is_no_thread_before_there_is_work(worker):
    """It is started at the first turn that has work."""
    assert worker.takeover._thread is None
    assert worker.takeover.arm_at <= time.monotonic()
    assert worker.takeover.descriptors() == ()
    assert not worker.takeover.active
    assert not worker.takeover.return_requested
    worker.takeover.end()  # has no effect


def test_the_loop_is_run_during_a_long_call_and_given_back(worker):
    """While the application runs, the thread has the lock, until the main thread wants it back."""
    takeover = worker.takeover
    takeover.arm(time.monotonic())
    takeover.loop_lock.release()  # the application is called, and does not return
    assert worker.taken_over.acquire(timeout=TIMEOUT)
    assert worker.by == "preforkd-takeover"
    assert takeover.active
    assert not takeover.loop_lock.acquire(blocking=False)
    takeover.reacquire()
    assert not takeover.active
    assert not takeover.return_requested
    assert takeover.loop_lock._is_owned()


def test_a_second_long_call_in_the_same_turn_is_taken_over_too(worker):
    """The timer is armed again while the turn goes on, also when it expired between two calls."""
    takeover = worker.takeover
    takeover.arm(time.monotonic())
    for _ in range(2):
        takeover.loop_lock.release()
        assert worker.taken_over.acquire(timeout=TIMEOUT)
        takeover.reacquire()


def test_the_thread_touches_nothing_while_the_main_thread_runs_the_loop(worker):
    """The timer expires once when the loop polls, and then never, until it is armed again."""
    takeover = worker.takeover
    takeover.polling = True
    fired = threading.Semaphore(0)
    takeover.arm(time.monotonic())
    lock, takeover.loop_lock = takeover.loop_lock, Counted(takeover.loop_lock, fired)
    assert fired.acquire(timeout=TIMEOUT)
    assert not fired.acquire(timeout=0.1)
    assert not worker.taken_over.acquire(blocking=False)
    assert not takeover.loop_lock.waited
    takeover.loop_lock = lock
    takeover.arm(time.monotonic())
    takeover.loop_lock.release()
    assert worker.taken_over.acquire(timeout=TIMEOUT)
    takeover.reacquire()


class Counted:
    """A lock whose attempts are counted."""

    def __init__(self, lock, attempts):
        self._lock, self._attempts = lock, attempts
        self.waited = False

    def acquire(self, blocking=True):
        self.waited = self.waited or blocking
        self._attempts.release()
        return self._lock.acquire(blocking=blocking)


def test_an_ended_thread_is_started_again(worker):
    """For the fork of a zygote there is none."""
    takeover = worker.takeover
    takeover.arm(time.monotonic())
    assert takeover.descriptors()
    takeover.end()
    assert takeover.descriptors() == ()
    takeover.arm(time.monotonic())
    takeover.loop_lock.release()
    assert worker.taken_over.acquire(timeout=TIMEOUT)
    takeover.reacquire()


def test_without_a_thread_connections_wait_and_that_is_logged_once(worker, monkeypatch, caplog):
    """The system grants none; it is not tried again for each request."""

    def refused(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    before = len(os.listdir("/proc/self/fd"))
    worker.takeover.arm(time.monotonic())
    assert len(os.listdir("/proc/self/fd")) == before
    assert worker.takeover.arm_at == math.inf
    assert "connections wait while the application runs" in caplog.text
    assert worker.takeover.descriptors() == ()


def test_where_it_is_of_no_use_it_is_never_due():
    """There is no other worker that could be given a request."""
    assert Takeover(lambda: None, lambda: None, enabled=False).arm_at == math.inf


def test_the_timer_is_moved_at_most_every_5_ms(worker):
    """A turn of the loop costs no system call between; the thread does not hold up the worker's exit."""
    worker.takeover.arm(100.0)
    assert worker.takeover.arm_at == pytest.approx(100.005)
    (thread,) = (one for one in threading.enumerate() if one.name == "preforkd-takeover")
    assert thread.daemon
    worker.takeover.end()
    assert not thread.is_alive()
    assert worker.takeover.arm_at <= time.monotonic()
    assert worker.takeover.enabled


def test_an_exception_of_a_signal_handler_does_not_lose_the_lock(worker, monkeypatch, caplog):
    """Also one that is raised while the lock is taken back."""
    takeover, left = worker.takeover, [KeyboardInterrupt, KeyError]
    takeover.arm(time.monotonic())
    takeover.loop_lock.release()
    assert worker.taken_over.acquire(timeout=TIMEOUT)

    def wake():
        if left:
            raise left.pop()("in a handler")
        worker.woken.set()

    monkeypatch.setattr(takeover, "_wake", wake)
    takeover.reacquire_after_exception()
    assert takeover.loop_lock._is_owned()
    assert not takeover.return_requested
    assert caplog.text.count("another exception in a signal handler") == 2
    takeover.return_requested = True  # the exception was raised behind its acquisition
    takeover.reacquire_after_exception()
    assert not takeover.return_requested


def test_a_closed_timer_ends_the_thread(worker):
    """As after an application that closes all descriptors; the main thread meets the error as well."""
    takeover = worker.takeover
    takeover.arm(time.monotonic())
    thread = takeover._thread
    os.close(takeover._timer.fileno())
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        takeover.arm(time.monotonic())
    takeover._timer = takeover._thread = None
