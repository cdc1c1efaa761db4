"""Work beside the loop."""

import threading

import pytest

from preforkd.background import run_in_thread
from preforkd.loop import Loop


def outcome(work):
    """Return what `beside` hands over, and the thread in which it does."""
    loop, heard = Loop(), []

    def hear(outcome):
        heard.append((outcome, threading.current_thread()))
        loop.stop()

    loop.call_later(20, pytest.fail, "nothing was heard")
    run_in_thread(loop, "worker", work, hear)
    loop.run()
    loop.close()
    (told,) = heard
    return told


def test_a_result_arrives_in_the_loop():
    """The work is done in a thread of that name, what comes of it is heard where the loop runs."""
    result, thread = outcome(threading.current_thread)
    assert result().name == "worker"
    assert thread is threading.main_thread()


def test_an_error_arrives_as_well():
    """What the work raised is raised where its result is asked for."""

    def fails():
        raise ValueError("no")

    result, _ = outcome(fails)
    with pytest.raises(ValueError, match="no"):
        result()


def test_without_a_thread(monkeypatch):
    """A system that grants none does not keep the work from being done."""

    def start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    result, _ = outcome(threading.current_thread)
    assert result() is threading.main_thread()


def test_a_loop_that_has_ended_does_not_hear():
    """The work goes on and nobody is disturbed."""
    go_on, begun, thread = threading.Event(), threading.Event(), []

    def works():
        thread.append(threading.current_thread())
        begun.set()
        go_on.wait(20)

    loop = Loop()
    run_in_thread(loop, "worker", works, lambda _: pytest.fail("heard"))
    assert begun.wait(20)
    loop.close()
    go_on.set()
    thread[0].join(20)
    assert not thread[0].is_alive()
