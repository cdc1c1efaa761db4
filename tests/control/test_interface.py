"""The interface's methods: who may do what, and what comes of it."""

import os

import pytest
from msgspec.structs import replace

from preforkd.control import interface
from preforkd.control.interface import Manager
from preforkd.control.permissions import Peer
from preforkd.errors import Blame, Failure
from tests.control.backend import BAD, MEMORY, VIEW, Backend

STRANGER = Peer(pid=4711, uid=os.geteuid() + 12345, groups=frozenset({4242}))
OURSELVES = Peer(pid=1, uid=os.geteuid(), groups=frozenset())

COMMANDS = [
    interface.Reload(fresh=True),
    interface.Stop(quick=True),
    interface.Refork(),
    interface.Scale(size=3),
]


class Client:
    """One who may do what his peer may, with a backend of his own."""

    def __init__(self, peer=OURSELVES, group=""):
        self.backend = Backend()
        methods = Manager(self.backend, peer, group).interface.methods
        self._methods = {method.parameters: method for method in methods}

    def call(self, asked):
        """Return the one answer to a call, which must be of the declared class or an error."""
        answers = []
        method = self._methods[type(asked)]
        method.perform(asked, answers.append)
        (answer,) = answers
        assert isinstance(answer, (method.result, interface.Error))
        return answer


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stranger_gives_no_commands(command, caplog):
    """The master is not even asked; who tried is in the log, and whom it is for in the answer."""
    client = Client(STRANGER, "admins")
    answer = client.call(command)
    assert isinstance(answer, interface.NotAllowed)
    assert answer.reason.endswith("runs as, or a member of admins")
    assert f"{type(command).__name__} refused to pid 4711" in caplog.text
    assert vars(client.backend) == vars(Backend())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_member_of_the_group_does(command, caplog):
    """By its number, too; each command is in the log with who gave it."""
    caplog.set_level("INFO")
    assert not isinstance(Client(STRANGER, "4242").call(command), interface.Error)
    assert f"{type(command).__name__} by pid 4711 of user {STRANGER.uid}" in caplog.text


def test_everybody_may_look():
    """The memory is read only where it is asked for: it costs."""
    client = Client(STRANGER)
    assert client.call(interface.GetStatus()).service == VIEW
    assert client.call(interface.GetStatus(memory=False)).service == VIEW
    assert client.call(interface.GetStatus(memory=True)).service == replace(VIEW, memory=MEMORY)
    assert client.call(interface.GetMemory()).memory == MEMORY
    assert vars(client.backend) == vars(Backend())


def test_a_size_by_hand():
    """So many, so many more, or (neither) what the settings say."""
    client = Client()
    for given, asked in (({"size": 3}, 3), ({"by": -2}, "by -2"), ({}, None)):
        assert client.call(interface.Scale(**given)).size == 5
        assert client.backend.scaled == asked


def test_a_reload_that_fails_is_an_error_with_all_its_parts():
    """Blame, reason, evidence and hint; one that succeeds says what it changed."""
    client = Client()
    assert client.call(interface.Reload(fresh=False)).live == ["workers"]
    client.backend.answer = BAD
    answer = client.call(interface.Reload(fresh=False))
    assert answer == interface.ReloadFailed("application", "it broke", "Traceback", "mend it")


def test_a_refork_that_fails_is_an_error_with_all_its_parts():
    """Blame, reason, evidence and hint; one that succeeds says what it did."""
    client = Client()
    assert client.call(interface.Refork()).message == "zygote 4 was forked from a worker"
    client.backend.reforked = Failure(Blame.APPLICATION, "a hook raised", "Traceback", "mend it")
    answer = client.call(interface.Refork())
    assert answer == interface.ReforkFailed("application", "a hook raised", "Traceback", "mend it")


def test_a_stop_says_how():
    """Quick or not."""
    client = Client()
    for quick in (False, True):
        client.call(interface.Stop(quick=quick))
    assert client.backend.stopped == [False, True]
