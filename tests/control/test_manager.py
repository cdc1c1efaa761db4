"""The interface's methods: who may do what, and what comes of it."""

import asyncio
import os

import pytest
from backend import BAD, MEMORY, VIEW, Backend

from preforkd.control.access import Peer
from preforkd.control.manager import Manager, NotAllowed, ReloadFailed

STRANGER = Peer(pid=4711, uid=os.geteuid() + 12345, groups=frozenset({4242}))
OURSELVES = Peer(pid=1, uid=os.geteuid(), groups=frozenset())


def manager(peer=OURSELVES, group=""):
    """Return the interface for a client, and the backend behind it."""
    backend = Backend()
    return Manager(backend, peer, group), backend


COMMANDS = {
    "Reload": lambda one: asyncio.run(one.Reload(fresh=True)),
    "Stop": lambda one: one.Stop(quick=True),
    "Refork": lambda one: asyncio.run(one.Refork()),
    "Scale": lambda one: one.Scale(size=3),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stranger_gives_no_commands(command, caplog):
    """The master is not even asked; who tried is in the log, and whom it is for in the answer."""
    one, backend = manager(STRANGER, "admins")
    with pytest.raises(NotAllowed) as caught:
        COMMANDS[command](one)
    assert caught.value.paramstojson()["reason"].endswith("runs as, or a member of admins")
    assert f"{command} refused to pid 4711" in caplog.text
    assert vars(backend) == vars(Backend())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_member_of_the_group_does(command, caplog):
    """By its number, too; each command is in the log with who gave it."""
    caplog.set_level("INFO")
    one, _ = manager(STRANGER, "4242")
    COMMANDS[command](one)
    assert f"{command} by pid 4711 of user {STRANGER.uid}" in caplog.text


def test_everybody_may_look():
    """The memory is read only where it is asked for: it costs."""
    one, backend = manager(STRANGER)
    assert asyncio.run(one.GetStatus()).parameters == {"service": VIEW}
    assert asyncio.run(one.GetStatus(memory=True)).parameters["service"].memory == MEMORY
    assert asyncio.run(one.GetMemory()).parameters == {"memory": MEMORY}
    assert vars(backend) == vars(Backend())


def test_a_size_by_hand():
    """So many, so many more, or (neither) what the settings say."""
    one, backend = manager()
    for given, asked in (
        ({"size": 3}, (3, 0)),
        ({"by": -2}, (None, -2)),
        ({}, (None, 0)),
    ):
        assert one.Scale(**given).parameters == {"size": 5}
        assert backend.scaled == asked


def test_a_reload_that_fails_is_an_error_with_all_its_parts():
    """Blame, reason, evidence and hint; one that succeeds says what it changed."""
    one, backend = manager()
    assert asyncio.run(one.Reload(fresh=False)).parameters["live"] == ["workers"]
    backend.answer = BAD
    with pytest.raises(ReloadFailed) as caught:
        asyncio.run(one.Reload(fresh=False))
    assert caught.value.paramstojson() == {
        "blame": "application",
        "reason": "it broke",
        "detail": "Traceback",
        "hint": "mend it",
    }
