"""Messages of children, and actions that fail; the rest is proven with real processes."""

import contextlib
import os
from types import SimpleNamespace

import pytest

from preforkd.config.settings import Settings
from preforkd.core import events as ev
from preforkd.errors import Blame
from preforkd.ipc import messages, slots
from preforkd.supervisor import children
from preforkd.supervisor.children import Launch
from preforkd.supervisor.pool import Pool
from preforkd.supervisor.sampler import PoolSample
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


def test_a_sample_is_what_the_workers_have_written(pool):
    """Of each worker: since when it is busy, its requests, its heartbeats and its connections."""
    with contextlib.ExitStack() as closed:
        writers = {}
        for worker in (1, 2):
            memory = slots.create("test")
            reader = slots.SlotReader(os.dup(memory))
            writers[worker] = slots.SlotWriter(memory, lambda: None)
            os.close(memory)
            pool._workers[worker] = SimpleNamespace(worker=worker, slot_memory=reader)
            closed.callback(reader.close)
            closed.callback(writers[worker].close)
        assert pool.sample(1000.0) == PoolSample({}, {1: 0, 2: 0}, {1: 0, 2: 0}, {1: 0, 2: 0})
        writers[1].set_busy(2_500_000_000)
        writers[2].set_busy(2_500_000_000)
        writers[2].request_done()
        writers[2].heartbeat()
        writers[2].set_connections(7)
        sample = pool.sample(1000.0)
        assert sample == PoolSample({1: 2.5}, {1: 0, 2: 1}, {1: 0, 2: 1}, {1: 0, 2: 7})


def test_a_stopped_worker_has_the_others_look_for_what_it_was_woken_for(pool, monkeypatch):
    """A connection for which the kernel has woken the stopped one alone; workers that start are not asked."""
    sent, states = [], {7: True, 8: None, 9: None}
    monkeypatch.setattr("preforkd.linux.process.stopped", states.get)
    monkeypatch.setattr(
        pool, "_send", lambda handle, message: sent.append((handle.worker, message))
    )
    for worker, pidfd, ready in ((1, 7, True), (2, 8, True), (3, 9, False)):
        pool._workers[worker] = SimpleNamespace(worker=worker, pidfd=pidfd, ready=ready)
    pool._note_stops()
    assert pool.facts == [ev.WorkerStopped(1, True)]
    assert sent == [(1, messages.Heartbeat()), (2, messages.Heartbeat())]
