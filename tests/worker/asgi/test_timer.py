"""One timer of the event loop for all deadlines."""

import asyncio

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
    assert "a timeout of a connection failed" in caplog.text
