"""Work beside the loop."""

import asyncio
import threading

import pytest

from preforkd.supervisor.beside import beside


def outcome(work):
    """Return what `beside` hands over, and the thread in which it does."""

    async def live():
        loop = asyncio.get_running_loop()
        heard = loop.create_future()
        beside(loop, "worker", work, heard.set_result)
        return await asyncio.wait_for(heard, 20), threading.current_thread()

    return asyncio.run(live())


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
    go_on, thread = threading.Event(), []

    def works():
        thread.append(threading.current_thread())
        go_on.wait(20)

    async def live():
        beside(asyncio.get_running_loop(), "worker", works, lambda _: pytest.fail("heard"))
        while not thread:
            await asyncio.sleep(0)

    asyncio.run(live())
    go_on.set()
    thread[0].join(20)
    assert not thread[0].is_alive()
