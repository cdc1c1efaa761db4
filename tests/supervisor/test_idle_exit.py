"""Exit of an idle service."""

import pytest

from preforkd.supervisor.idle_exit import IdleExit
from tests.supervisor.test_notify import Loop


class Watched:
    """A service that is busy or idle as the test sets it."""

    def __init__(self, loop):
        self.loop, self.since, self.connections = loop, loop.time(), 0

    def quiet_since(self):
        return self.since

    def open_connections(self):
        return self.connections


@pytest.fixture
def scene():
    """A clock, a service, the exits."""
    loop, left = Loop(), []
    watched = Watched(loop)
    return loop, watched, left, IdleExit(loop, watched, lambda: left.append(loop.time()))


def test_an_idle_service_leaves_when_the_period_is_over(scene):
    """Once, and not before."""
    loop, _, left, idle = scene
    idle.set_period(10.0)
    loop.run(9.9)
    assert not left
    loop.run(100)
    assert left == [110.0]


def test_the_period_begins_with_the_last_request(scene):
    """A service that was busy in between leaves later; an open connection keeps it."""
    loop, watched, left, idle = scene
    idle.set_period(10.0)
    loop.run(4)
    watched.since = None
    loop.run(8)
    watched.since = loop.time()
    watched.connections = 1
    loop.run(20)
    assert not left
    watched.connections = 0
    loop.run(20)
    assert len(left) == 1


def test_no_period_is_no_exit(scene):
    """And no timer; a reload may change it."""
    loop, _, left, idle = scene
    idle.set_period(0.0)
    assert not loop.timers
    idle.set_period(5.0)
    idle.set_period(0.0)
    loop.run(100)
    assert not left
    assert not loop.timers
