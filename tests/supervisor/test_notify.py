"""STATUS: on change, seldom, and never polled for."""

import pytest

from preforkd.supervisor.notify import EXTENSION, StatusNotifier, TimeoutExtender, Watchdog


class Loop:
    """A clock and its timers."""

    def __init__(self):
        self.now, self.timers = 100.0, []

    def time(self):
        return self.now

    def call_at(self, when, callback, *arguments):
        timer = Timer(self, when, callback, arguments)
        self.timers.append(timer)
        return timer

    def call_later(self, delay, callback, *arguments):
        return self.call_at(self.now + delay, callback, *arguments)

    def run(self, seconds):
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.callback(*timer.arguments)
        self.now = end


class Timer:
    def __init__(self, loop, when, callback, arguments):
        self.loop, self.when, self.callback, self.arguments = loop, when, callback, arguments

    def cancel(self):
        if self in self.loop.timers:
            self.loop.timers.remove(self)


class Notifier:
    def __init__(self):
        self.sent, self.full, self.watchdog_interval, self.pings = [], False, None, 0

    def status(self, text):
        if not self.full:
            self.sent.append(text)
        return not self.full

    def watchdog(self):
        self.pings += 1


@pytest.fixture
def scene():
    loop, notifier = Loop(), Notifier()
    texts = {"state": "a"}
    return loop, notifier, texts, StatusNotifier(loop, notifier, lambda: texts["state"])


def test_changes_are_said_once_a_second_at_the_most(scene):
    """The first at once, the last of a flurry when the second is over, nothing twice."""
    loop, notifier, texts, status = scene
    status.refresh()
    for letter in "bcd":
        texts["state"] = letter
        loop.run(0.1)
        status.refresh()
    assert notifier.sent == ["a"]
    loop.run(5)
    assert notifier.sent == ["a", "d"]
    status.refresh()
    loop.run(5)
    assert len(notifier.sent) == 2
    assert not loop.timers


def test_what_was_not_taken_is_said_again(scene):
    """A manager with no room now gets the status later."""
    loop, notifier, _, status = scene
    notifier.full = True
    status.refresh()
    loop.run(2)
    notifier.full = False
    loop.run(2)
    assert notifier.sent == ["a"]
    assert not loop.timers


def test_the_watchdog_vouches_for_a_healthy_pool_only():
    """Two pings in an interval while healthy, none while not, none if none is expected."""
    loop, notifier = Loop(), Notifier()
    health = {"ok": True}
    Watchdog(loop, notifier, lambda: health["ok"]).start()
    loop.run(10)
    assert notifier.pings == 0
    notifier.watchdog_interval = 2.0
    Watchdog(loop, notifier, lambda: health["ok"]).start()
    loop.run(9.5)
    assert notifier.pings == 10
    health["ok"] = False
    loop.run(10)
    assert notifier.pings == 10
    health["ok"] = True
    loop.run(1)
    assert notifier.pings == 11


class Manager:
    """Records until when it has granted time; a daemon-reload makes it forget."""

    active = True

    def __init__(self, loop):
        self.loop, self.granted = loop, []

    def extend_timeout(self, seconds):
        self.granted.append((self.loop.now, self.loop.now + seconds))


def test_time_is_asked_for_in_pieces_for_as_long_as_the_step_may_last():
    """Each piece comes well before the one before it ends; the last ends with the step's own time."""
    loop = Loop()
    manager = Manager(loop)
    TimeoutExtender(loop, manager).begin(60)
    loop.run(200)
    for (_, end), (begin, _) in zip(manager.granted, manager.granted[1:], strict=False):
        assert begin <= end - EXTENSION / 2 or end == 160.0
    assert max(end for _, end in manager.granted) == 160.0
    assert all(end - begin <= EXTENSION for begin, end in manager.granted)


def test_no_time_is_asked_for_when_the_step_is_over():
    """The end of a step, another step, or a service without a manager end the extensions."""
    loop = Loop()
    manager = Manager(loop)
    extender = TimeoutExtender(loop, manager)
    extender.begin(60)
    extender.begin(30)
    assert len(loop.timers) == 1
    extender.end()
    loop.run(100)
    assert len(manager.granted) == 2
    manager.active = False
    extender.begin(60)
    assert not loop.timers
