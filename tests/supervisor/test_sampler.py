"""Samples of the slots: from a wake-up until all is idle, and never else."""

import socket

import pytest

from preforkd.supervisor.sampler import ARRIVAL_DELAY, RETRY_DELAY, PoolSample, Sampler
from tests.supervisor.test_notify import Loop as Clock


class Loop(Clock):
    """A clock, its timers, and what is watched."""

    def __init__(self):
        super().__init__()
        self.readers = {}

    def add_reader(self, descriptor, callback):
        self.readers[descriptor] = callback

    def remove_reader(self, descriptor):
        del self.readers[descriptor]


class Slots:
    def __init__(self):
        self.now, self.wakeups_requested, self.samples = PoolSample(), 0, 0
        self.while_arming = None

    def sample(self, now):
        self.samples += 1
        return self.now

    def request_wakeups(self):
        self.wakeups_requested += 1
        if self.while_arming is not None:
            self.now = self.while_arming


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def scene(listener):
    """A clock, slots, the samples, and a sampler whose callback asks for one every half second."""
    loop, slots, seen = Loop(), Slots(), []

    def callback(sample):
        seen.append(sample)
        return 0.5

    return loop, slots, seen, Sampler(loop, slots, callback, lambda: [listener])


def test_a_bell_starts_the_looking_and_quiet_ends_it(scene):
    """Nothing is read before a wake-up, nor after a sample that finds no worker busy and nothing answered."""
    loop, slots, seen, lookout = scene
    loop.run(10)
    assert slots.samples == 0
    assert lookout.quiet_since() == 100.0
    slots.now = PoolSample({1: 109.0}, {1: 0})
    lookout.wake()
    lookout.wake()
    assert seen == [PoolSample({1: 109.0}, {1: 0})]
    assert lookout.quiet_since() is None
    loop.run(2)
    assert len(seen) == 5
    assert slots.wakeups_requested == 0
    slots.now = PoolSample({}, {1: 1})
    loop.run(1)
    assert slots.wakeups_requested == 1
    assert lookout.quiet_since() == loop.now
    samples = slots.samples
    loop.run(100)
    assert slots.samples == samples
    assert not loop.timers


def test_who_becomes_busy_while_the_bells_are_armed_is_seen(scene):
    """It has sent nothing: the sample after the request finds it, and sampling goes on."""
    loop, slots, seen, lookout = scene
    slots.now = PoolSample({}, {1: 1})
    lookout.wake()
    slots.while_arming = PoolSample({2: 100.0}, {1: 1})
    loop.run(0.5)
    assert seen[-1].busy == {2: 100.0}
    assert lookout.quiet_since() is None


def quieten(loop, lookout):
    """Let the looking begin and end."""
    lookout.wake()
    loop.run(1)
    assert lookout.quiet_since() is not None


def test_a_connection_that_nobody_takes_starts_the_looking(scene, listener):
    """A moment after it arrived, without a wake-up; it goes on as long as the connection waits."""
    loop, slots, _, lookout = scene
    quieten(loop, lookout)
    samples = slots.samples
    with socket.create_connection(listener.getsockname()):
        loop.readers[listener.fileno()]()
        assert not loop.readers  # once: a thousand more that arrive cost the master nothing
        loop.run(ARRIVAL_DELAY * 0.9)
        assert slots.samples == samples
        loop.run(10)
        assert slots.samples > samples + 10
        assert lookout.quiet_since() is None
        listener.accept()[0].close()
        loop.run(1)
    assert lookout.quiet_since() is not None
    assert not loop.timers
    assert listener.fileno() in loop.readers


def test_a_connection_that_is_taken_is_looked_for_once(scene, listener):
    """And a wake-up that arrives meanwhile has caused a sample already."""
    loop, slots, _, lookout = scene
    quieten(loop, lookout)
    loop.readers[listener.fileno()]()
    slots.now = PoolSample({1: 100.0}, {1: 0})
    lookout.wake()
    assert len(loop.timers) == 1
    slots.now = PoolSample({}, {1: 0})
    loop.run(10)
    samples = slots.samples
    loop.readers[listener.fileno()]()
    loop.run(10)
    assert slots.samples == samples + 3  # two, and one after the wake-ups were requested
    assert not loop.timers


def test_a_listener_can_be_closed(scene, listener):
    """Nothing is watched then; the next quiet watches those that there are."""
    loop, _, _, lookout = scene
    quieten(loop, lookout)
    lookout.unwatch()
    assert not loop.readers
    lookout.unwatch()
    quieten(loop, lookout)
    assert loop.readers
    lookout.close()
    assert not loop.readers


def test_a_look_that_raises_is_followed_by_the_next(listener):
    """The loop logs it. If sampling ended, no hung worker would be noticed any more."""
    loop, slots, samples = Loop(), Slots(), []
    slots.now = PoolSample({1: 100.0}, {1: 0})

    def callback(sample):
        samples.append(loop.now)
        if len(samples) == 1:
            raise ValueError("a defect")
        return 0.5

    sampler = Sampler(loop, slots, callback, lambda: [listener])
    with pytest.raises(ValueError, match="a defect"):
        sampler.wake()
    loop.run(RETRY_DELAY)
    assert samples == [100.0, 100.0 + RETRY_DELAY]
    slots.now = None  # reading the slots raises as well
    with pytest.raises(AttributeError):
        loop.run(0.5)
    slots.now = PoolSample({}, {1: 0})
    loop.run(RETRY_DELAY)
    assert sampler.quiet_since() == loop.now
    assert not loop.timers
