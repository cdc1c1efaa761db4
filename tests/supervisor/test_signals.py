"""The signals of the master: what each calls, and that the documents' table is complete."""

import signal
from types import SimpleNamespace

import pytest

from preforkd.linux.process import MASTER_SIGNALS
from preforkd.supervisor import signals


class Master:
    """Writes down what is called."""

    def __init__(self):
        self.calls = []
        self.now = 100.0
        self.restarting = False
        self.loop = SimpleNamespace(time=lambda: self.now)
        self.pool = SimpleNamespace(child_changed=lambda: self.calls.append("child_changed"))

    def stop(self, quick=False):
        self.calls.append(("stop", quick, self.restarting))

    def on_sighup(self):
        self.calls.append("reload")

    def log_status(self):
        self.calls.append("status")

    def scale_by(self, step):
        self.calls.append(step)


class Loop:
    """Keeps the handlers, and calls one when its signal arrives."""

    def __init__(self):
        self.handlers = {}

    def add_signal_handler(self, number, callback, *arguments):
        assert number not in self.handlers
        self.handlers[number] = callback, arguments

    def arrive(self, number):
        callback, arguments = self.handlers[number]
        callback(*arguments)


@pytest.fixture
def received():
    """A loop whose signals a master receives."""
    loop, master = Loop(), Master()
    signals.receive(loop, master)
    return loop, master


@pytest.mark.parametrize(
    ("number", "call"),
    [
        (signal.SIGTERM, ("stop", False, False)),
        (signal.SIGINT, ("stop", False, False)),
        (signal.SIGQUIT, ("stop", True, False)),
        (signal.SIGUSR2, ("stop", False, True)),
        (signal.SIGHUP, "reload"),
        (signal.SIGUSR1, "status"),
        (signal.SIGTTIN, 1),
        (signal.SIGTTOU, -1),
        (signal.SIGCHLD, "child_changed"),
    ],
)
def test_each_signal_has_its_effect(received, number, call):
    """It calls the master once."""
    loop, master = received
    loop.arrive(number)
    assert master.calls == [call]


@pytest.mark.parametrize(("later", "stops"), [(0.0, 1), (0.09, 1), (0.11, 2)])
def test_the_same_signal_within_a_moment_counts_once(received, later, stops):
    """A terminal sends it to the process and to the group; a person who repeats it is slower."""
    loop, master = received
    loop.arrive(signal.SIGTERM)
    master.now += later
    loop.arrive(signal.SIGTERM)
    assert len(master.calls) == stops


def test_another_signal_counts_at_once(received):
    """SIGINT after SIGTERM is a second request."""
    loop, master = received
    loop.arrive(signal.SIGTERM)
    loop.arrive(signal.SIGINT)
    assert len(master.calls) == 2


def test_every_signal_is_declared_once_and_with_its_meaning(received):
    """What the loop handles is what the documents list, and what the children leave to the master is in it."""
    loop, _ = received
    listed = [number for each in signals.SIGNALS for number in each.numbers]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(loop.handlers) - {signal.SIGCHLD}
    assert set(MASTER_SIGNALS) <= set(listed)
    for each in signals.SIGNALS:
        assert each.meaning.endswith("."), each.numbers
