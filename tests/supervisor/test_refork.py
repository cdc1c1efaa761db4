"""Zygotes that workers were ordered to fork, and the callbacks that wait for them."""

import os

import msgspec
import pytest

from preforkd.core import events as ev
from preforkd.errors import Blame, Failure
from preforkd.ipc import messages, slots
from preforkd.ipc.channel import Channel, pair
from preforkd.linux import process
from preforkd.supervisor.children import WorkerHandle
from preforkd.supervisor.refork import PendingReforks, ReforkWaiters

FAILURE = Failure(Blame.APPLICATION, "not now")


def test_all_who_wait_are_told_once():
    """With a message or a failure, once."""
    waiters, results = ReforkWaiters(), []
    waiters.add(lambda outcome: results.append(("first", outcome)))
    waiters.add(lambda outcome: results.append(("second", outcome)))
    waiters.resolve("it is done")
    waiters.resolve(FAILURE)  # no callback waits
    waiters.add(lambda outcome: results.append(("third", outcome)))
    waiters.resolve(FAILURE)
    assert results == [("first", "it is done"), ("second", "it is done"), ("third", FAILURE)]


def claim(pid):
    """Return what stands for a pidfd of the one pid that is a child of ours."""
    return os.open(os.devnull, os.O_RDONLY) if pid == 4711 else None


class Scene:
    """PendingReforks, and a worker; the test holds the other end of its channel."""

    def __init__(self):
        self.facts = []
        self.pending = PendingReforks(self.facts.append)
        ours, theirs = pair()
        self.handle = WorkerHandle(
            worker=5,
            slot=2,
            generation=3,
            zygote=1,
            channel=Channel(ours, msgspec.msgpack.Decoder(messages.FromWorker)),
            slot_memory=slots.SlotReader(slots.create("test")),
            pid=1,
        )
        self.worker = Channel(theirs, msgspec.msgpack.Decoder(messages.ToWorker))
        self.channels = []

    def request(self, zygote=9):
        """Ask the worker for a zygote; keep the channel that it is given for it."""
        self.pending.request(ev.ForkZygote(zygote, 3, 5), self.handle)
        received = self.worker.receive(wait=True)
        assert received.message == messages.ReforkRequest(zygote)
        self.channels += received.descriptors

    def failure(self):
        """Return the failure of the only fact there is."""
        (fact,) = self.facts
        self.facts.clear()
        assert fact.zygote == 9
        return fact.failure.reason

    def close(self):
        for descriptor in self.channels:
            os.close(descriptor)
        self.worker.close()
        self.handle.channel.close()
        self.handle.slot_memory.close()


@pytest.fixture
def scene(monkeypatch):
    scene = Scene()
    scene.killed = []
    monkeypatch.setattr(process, "send_signal", lambda pidfd, number: scene.killed.append(pidfd))
    yield scene
    scene.pending.drop(9)
    scene.close()


def test_a_zygote_is_born(scene):
    """The reported pid is that of a child, which gets the generation of the worker."""
    scene.request()
    handle = scene.pending.forked(scene.handle, messages.Reforked(9, 4711), claim)
    assert (handle.zygote, handle.generation, handle.pid) == (9, 3, 4711)
    os.close(handle.pidfd)
    assert scene.facts == []
    assert not scene.pending.drop(9)
    handle.channel.close()


def test_one_that_nobody_asked_for_is_ended(scene):
    """It was given up while it was being forked; a pid that is no child of ours is left alone."""
    assert scene.pending.forked(scene.handle, messages.Reforked(9, 1), claim) is None
    assert scene.killed == []
    assert scene.pending.forked(scene.handle, messages.Reforked(9, 4711), claim) is None
    (pidfd,) = scene.killed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfd)


def test_only_the_worker_that_was_asked_is_believed(scene):
    """What another one names is ended if it is ours, and the one that was asked for may still come."""
    scene.request()
    other = WorkerHandle(6, 1, 3, 1, scene.handle.channel, scene.handle.slot_memory)
    assert scene.pending.forked(other, messages.Reforked(9, 4711), claim) is None
    assert len(scene.killed) == 1
    handle = scene.pending.forked(scene.handle, messages.Reforked(9, 4711), claim)
    os.close(handle.pidfd)
    handle.channel.close()


def test_one_that_ended_at_once_is_a_failure(scene):
    """Its pid is no child's any more."""
    scene.request()
    assert scene.pending.forked(scene.handle, messages.Reforked(9, 4712), claim) is None
    assert scene.failure() == "the zygote exited as soon as it was forked"


def test_a_worker_that_cannot_fork_says_why(scene):
    """The reason is passed on, with evidence and hint; only the one that was asked is believed."""
    scene.request()
    failure = Failure(Blame.APPLICATION, "a hook raised", "d", "h")
    other = WorkerHandle(6, 1, 3, 1, scene.handle.channel, scene.handle.slot_memory)
    scene.pending.failed(other, 9, failure)
    assert scene.facts == []
    scene.pending.failed(scene.handle, 9, failure)
    (fact,) = scene.facts
    assert fact.failure is failure


def test_a_worker_that_ends_meanwhile_is_a_failure(scene):
    """Before it was asked, or while it forked."""
    scene.pending.request(ev.ForkZygote(9, 3, 5), None)
    assert scene.failure() == "the worker that was to fork it has exited"
    scene.request()
    scene.pending.worker_ended(scene.handle)
    assert scene.failure() == "worker 2 exited while it forked the zygote"
    scene.worker.close()
    scene.pending.request(ev.ForkZygote(9, 3, 5), scene.handle)
    assert scene.failure().startswith("cannot send the refork request to worker 2")
