"""The takeover thread: which thread runs the loop while the application blocks the worker."""

import threading

import pytest

from preforkd.worker.wsgi.takeover import Takeover

PATIENCE = 20


class Worker:
    """A loop that the test turns by hand, and its takeover thread."""

    def __init__(self):
        self.turn = 0
        self.relieved = threading.Semaphore(0)
        self.woken = threading.Event()
        self.by = None
        self.takeover = Takeover(lambda: self.turn, self._run_loop, self.woken.set, enabled=True)

    def _run_loop(self):
        self.by = threading.current_thread().name
        self.relieved.release()
        assert self.woken.wait(PATIENCE)
        self.woken.clear()


@pytest.fixture
def worker():
    worker = Worker()
    worker.takeover.reacquire()
    yield worker
    worker.takeover.end()


def test_nobody_stands_in_before_there_is_work(worker):
    """It sleeps, and there is not even a thread."""
    assert worker.takeover.asleep
    assert worker.takeover._thread is None


def test_a_long_call_is_relieved_and_custody_comes_back(worker):
    """While the application has the turn, another thread does the loop's work, until it is wanted back."""
    takeover = worker.takeover
    takeover.activate()
    takeover.loop_lock.release()  # the application is called, and does not return
    assert worker.relieved.acquire(timeout=PATIENCE)
    assert worker.by == "preforkd-takeover"
    assert not takeover.loop_lock.acquire(blocking=False)
    takeover.reacquire()
    assert not takeover.return_requested
    assert takeover.loop_lock._is_owned()


def test_while_the_loop_has_custody_nobody_touches_the_connections(worker):
    """However often it looks: it has no work, and sleeps again until it is called."""
    takeover = worker.takeover
    takeover.activate()
    assert not takeover.asleep
    deadline = threading.Event()
    while not takeover.asleep:
        assert takeover._thread.is_alive()
        deadline.wait(0.01)
    assert not worker.relieved.acquire(blocking=False)
    # And is there again.
    takeover.activate()
    takeover.loop_lock.release()
    assert worker.relieved.acquire(timeout=PATIENCE)
    takeover.reacquire()


def test_without_a_thread_connections_wait_and_that_is_said_once(worker, monkeypatch, caplog):
    """The system grants none; nobody asks again for each request."""

    def refused(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    worker.takeover.activate()
    assert not worker.takeover.asleep
    assert "connections wait while the application runs" in caplog.text
    worker.takeover.loop_lock.release()
    worker.takeover.reacquire()
    worker.takeover.end()
