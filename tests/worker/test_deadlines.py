"""The deadlines of connections: each has one at most, and the first is known."""

import math
import random
import time

import pytest

from preforkd.worker.deadlines import Deadlines


class Waiter:
    def __init__(self):
        self.waiting = None


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_an_item_expires_once_at_its_deadline_with_what_it_waited_for(clock):
    """Not before, and not again; it waits for nothing afterwards."""
    deadlines, item = Deadlines({"body": 5.0, "idle": 60.0}), Waiter()
    assert deadlines.soonest == math.inf
    deadlines.set(item, "body")
    assert (item.waiting, deadlines.soonest) == ("body", 105.0)
    assert deadlines.expired(104.999) == []
    assert deadlines.expired(105.0) == [(item, "body")]
    assert (item.waiting, deadlines.soonest) == (None, math.inf)
    assert deadlines.expired(1e9) == []


def test_a_new_deadline_replaces_the_one_before(clock):
    """Of the same kind, which begins again, or of another."""
    deadlines, item = Deadlines({"body": 5.0, "idle": 60.0}), Waiter()
    deadlines.set(item, "idle")
    deadlines.set(item, "body")
    clock[0] = 103.0
    deadlines.set(item, "body")
    assert deadlines.expired(105.0) == []
    assert deadlines.soonest == 108.0
    assert dict(deadlines.of("body")) == {item: 108.0}
    assert not deadlines.of("idle")


def test_a_cleared_item_does_not_expire(clock):
    """Clearing has no effect on one that waits for nothing."""
    deadlines, item = Deadlines({"body": 5.0}), Waiter()
    deadlines.clear(item)
    deadlines.set(item, "body")
    deadlines.clear(item)
    assert item.waiting is None
    assert deadlines.expired(1e9) == []
    assert deadlines.soonest == math.inf


def test_the_first_deadline_is_never_overlooked(clock):
    """Whatever is set and cleared in whatever order: `soonest` is a lower bound, and nothing is late."""
    timeouts = {"a": 1.0, "b": 2.5, "c": 7.0}
    chance, deadlines = random.Random(7), Deadlines(timeouts)
    items, due = [Waiter() for _ in range(20)], {}
    for _ in range(3000):
        clock[0] += chance.random() / 4
        late = {item: kind for item, kind in due.items() if kind[1] <= clock[0]}
        assert deadlines.soonest <= min((kind[1] for kind in due.values()), default=math.inf)
        found = deadlines.expired(clock[0])
        assert sorted(map(id, late)) == sorted(id(item) for item, _ in found)
        assert all(late[item][0] == kind for item, kind in found)
        for item in late:
            del due[item]
        assert deadlines.soonest == min((kind[1] for kind in due.values()), default=math.inf)
        item, kind = chance.choice(items), chance.choice([*timeouts, None])
        if kind is None:
            deadlines.clear(item)
            due.pop(item, None)
        else:
            deadlines.set(item, kind)
            due[item] = kind, clock[0] + timeouts[kind]
