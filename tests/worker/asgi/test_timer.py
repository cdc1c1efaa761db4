"""One timer of the event loop for all deadlines."""

import asyncio
import time

import pytest

from preforkd.worker.asgi.timer import Timer, Waiting


class Item:
    def __init__(self, timer=None):
        self.waiting = None
        self.expired = asyncio.Event()
        self.kinds = []
        self.timer = timer

    def on_deadline(self, kind):
        self.kinds.append(kind)
        self.expired.set()
        if self.timer is not None:
            raise RuntimeError("it fails")


TIMEOUTS = {Waiting.BODY: 0.05, Waiting.FIRST_REQUEST: 0.02, Waiting.NEXT_REQUEST: 3600.0}


def test_each_deadline_is_reported_once_at_its_time():
    """Also one that is set later and is due earlier; an item that is cleared is not reported."""

    async def wait():
        timer = Timer(asyncio.get_running_loop(), TIMEOUTS)
        late, early, idle, cleared = (Item() for _ in range(4))
        timer.set(idle, Waiting.NEXT_REQUEST)
        timer.set(late, Waiting.BODY)
        timer.set(cleared, Waiting.BODY)
        timer.set(early, Waiting.FIRST_REQUEST)
        timer.clear(cleared)
        await early.expired.wait()
        await late.expired.wait()
        again = Item()
        timer.set(again, Waiting.FIRST_REQUEST)  # the timer is set for an hour by now
        await again.expired.wait()
        return [item.kinds for item in (early, late, again, cleared, idle)]

    kinds = asyncio.run(asyncio.wait_for(wait(), 20))
    assert kinds == [
        [Waiting.FIRST_REQUEST],
        [Waiting.BODY],
        [Waiting.FIRST_REQUEST],
        [],
        [],
    ]


def test_a_handler_that_fails_does_not_stop_the_others(caplog):
    """Its exception is logged."""

    async def wait():
        timer = Timer(asyncio.get_running_loop(), TIMEOUTS)
        failing, other = Item(timer), Item()
        timer.set(failing, Waiting.BODY)
        timer.set(other, Waiting.BODY)
        await other.expired.wait()

    asyncio.run(asyncio.wait_for(wait(), 20))
    assert [record.name for record in caplog.records] == ["preforkd.worker"]
    assert "a timeout of a connection failed" in caplog.text


class Loop:
    """A loop that keeps the calls of call_later, and a clock that goes on when one is run."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 100.0, []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def call_later(self, seconds, call, *arguments):
        self.calls.append((self.now + seconds, call, arguments))

    def step(self):
        self.now, call, arguments = self.calls.pop(0)
        call(*arguments)


@pytest.fixture
def loop(monkeypatch):
    return Loop(monkeypatch)


def test_one_timer_of_the_loop_serves_all_deadlines(loop):
    """It is armed for the first one, not for those that come later or at the same time."""
    timer, items = Timer(loop, TIMEOUTS), [Item() for _ in range(4)]
    timer.set(items[0], Waiting.BODY)
    timer.set(items[1], Waiting.BODY)
    timer.set(items[2], Waiting.NEXT_REQUEST)
    assert [when for when, *_ in loop.calls] == [100.05]
    loop.step()
    assert [item.kinds for item in items[:3]] == [[Waiting.BODY], [Waiting.BODY], []]
    assert [when for when, *_ in loop.calls] == [3700.0]


def test_a_deadline_that_has_passed_is_reported_at_once(loop):
    """A handler held the loop up meanwhile."""
    timer, first, second = Timer(loop, TIMEOUTS), Item(), Item()
    timer.set(first, Waiting.BODY)
    timer.set(second, Waiting.NEXT_REQUEST)
    first.on_deadline = lambda kind: setattr(loop, "now", 4000.0)
    loop.step()
    assert [when for when, *_ in loop.calls] == [4000.0]
    loop.step()
    assert second.kinds == [Waiting.NEXT_REQUEST]


def test_without_deadlines_no_timer_runs(loop):
    """An idle worker sleeps."""
    timer, item = Timer(loop, TIMEOUTS), Item()
    timer.set(item, Waiting.BODY)
    timer.clear(item)
    loop.step()
    assert not loop.calls
