"""Looks at the slots: from a bell until all is quiet, and never else."""

import pytest
from test_herald import Loop

from preforkd.supervisor.lookout import Glance, Lookout


class Slots:
    def __init__(self):
        self.now, self.armed, self.looks = Glance(), 0, 0
        self.while_arming = None

    def glance(self, now):
        self.looks += 1
        return self.now

    def arm(self):
        self.armed += 1
        if self.while_arming is not None:
            self.now = self.while_arming


@pytest.fixture
def scene():
    """A clock, slots, what was seen, and a lookout that looks every half second."""
    loop, slots, seen = Loop(), Slots(), []

    def tell(glance):
        seen.append(glance)
        return 0.5

    return loop, slots, seen, Lookout(loop, slots, tell)


def test_a_bell_starts_the_looking_and_quiet_ends_it(scene):
    """Nothing is read before the bell, nor after a look that finds nobody busy and nothing answered."""
    loop, slots, seen, lookout = scene
    loop.run(10)
    assert slots.looks == 0
    assert lookout.quiet_since() == 100.0
    slots.now = Glance({1: 109.0}, {1: 0})
    lookout.bell()
    lookout.bell()
    assert seen == [Glance({1: 109.0}, {1: 0})]
    assert lookout.quiet_since() is None
    loop.run(2)
    assert len(seen) == 5
    assert slots.armed == 0
    slots.now = Glance({}, {1: 1})
    loop.run(1)
    assert slots.armed == 1
    assert lookout.quiet_since() == loop.now
    looks = slots.looks
    loop.run(100)
    assert slots.looks == looks
    assert not loop.timers


def test_who_becomes_busy_while_the_bells_are_armed_is_seen(scene):
    """He has not rung: the look after the arming finds him, and the looking goes on."""
    loop, slots, seen, lookout = scene
    slots.now = Glance({}, {1: 1})
    lookout.bell()
    slots.while_arming = Glance({2: 100.0}, {1: 1})
    loop.run(0.5)
    assert seen[-1].busy == {2: 100.0}
    assert lookout.quiet_since() is None
