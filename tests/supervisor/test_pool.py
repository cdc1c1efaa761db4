"""Messages of children, and actions that fail; the rest is proven with real processes."""

import errno
from types import SimpleNamespace

import pytest

from preforkd.config.settings import AppSettings, Settings
from preforkd.core import events as ev
from preforkd.errors import Blame
from preforkd.supervisor import children
from preforkd.supervisor.children import Launch
from preforkd.supervisor.pool import Pool, not_executable
from tests.supervisor.test_notify import Loop


@pytest.fixture
def pool():
    """A pool without processes; `facts` are what it reports."""
    facts = []
    pool = Pool(Loop(), facts.append, lambda: None)
    pool.facts = facts
    pool.launches[1] = Launch(1, Settings(), (), {})
    return pool


def fail(*_arguments):
    raise UnicodeEncodeError("ascii", "x", 0, 1, "of no use")


@pytest.mark.parametrize("action", [ev.SpawnZygote(1, 1), ev.ForkZygote(1, 1, 1)])
def test_a_zygote_that_cannot_be_made_by_a_fault_of_ours_has_failed(pool, monkeypatch, action):
    """Any exception is reported as a failure, blamed on preforkd."""
    monkeypatch.setattr(children, "new_zygote", fail)
    monkeypatch.setattr(pool._pending_reforks, "request", fail)
    pool.perform(action)
    (fact,) = pool.facts
    assert fact.zygote == 1
    assert fact.failure.blame is Blame.INTERNAL
    assert "UnicodeEncodeError" in fact.failure.reason


def test_a_worker_that_cannot_be_made_by_a_fault_of_ours_has_ended(pool, monkeypatch):
    """It has no handle, so its slot is free."""
    monkeypatch.setattr(children, "new_worker", fail)
    pool._zygotes[1] = SimpleNamespace()
    pool.perform(ev.ForkWorker(1, 1, 1, 1))
    (fact,) = pool.facts
    assert isinstance(fact, ev.WorkerExited)
    assert "UnicodeEncodeError" in fact.reason


@pytest.mark.parametrize("stacks", [True, False])
@pytest.mark.parametrize("action", [ev.KillWorker, ev.KillZygote])
def test_who_is_to_be_killed_is_killed_though_its_stacks_cannot_be_had(
    pool, monkeypatch, action, stacks
):
    """A stop waits for each process."""
    killed = []
    monkeypatch.setattr(
        "preforkd.linux.process.send_signal", lambda pidfd, number: killed.append((pidfd, number))
    )
    handle = SimpleNamespace(pidfd=7, slot_reader=SimpleNamespace(expect_stacks=fail))
    pool._workers[1] = pool._zygotes[1] = handle
    pool.perform(action(1, "late", stacks=stacks))
    assert killed == [(7, 9)]


def test_an_environment_that_is_too_large_is_named():
    """Not the interpreter, which is there."""
    failure = not_executable(
        Settings(app=AppSettings(python="/bin/x")), OSError(errno.E2BIG, "too long")
    )
    assert failure.reason.startswith("the environment of the application is larger")
    assert "app.environment" in failure.hint
