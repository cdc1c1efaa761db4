"""The threads that answer requests; connections are what the test puts in their place."""

import threading
from types import SimpleNamespace

import pytest

from preforkd.worker.wsgi.threads import ThreadPool

PATIENCE = 20


class RecordingSlotWriter:
    """Notes what the slot is told."""

    def __init__(self):
        self.said = []

    def set_request_line(self, line):
        self.said.append(line)

    def set_busy(self, since):
        self.said.append("busy")

    def request_done(self):
        self.said.append("idle")


def connection(line):
    """Return the attributes of a connection with a request that the pool uses."""
    return HashedByIdentity(request=SimpleNamespace(cached=SimpleNamespace(line=line)))


class HashedByIdentity(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Scene:
    """A pool whose requests are answered when the test releases them."""

    def __init__(self, size):
        self.slot_writer = RecordingSlotWriter()
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.woken = threading.Semaphore(0)
        self.names = []
        self.pool = ThreadPool(size, self._answer, self.woken.release, self.slot_writer)

    def _answer(self, _connection):
        self.names.append(threading.current_thread().name)
        self.begun.release()
        assert self.go_on.acquire(timeout=PATIENCE)

    def give(self, *connections):
        """Give these, and return when a thread has each."""
        for one in connections:
            self.pool.submit(one)
        for _ in connections:
            assert self.begun.acquire(timeout=PATIENCE)

    def finish(self, count=1):
        """Let so many be answered, and return when the loop was woken for each."""
        for _ in range(count):
            self.go_on.release()
            assert self.woken.acquire(timeout=PATIENCE)


@pytest.fixture
def scene():
    scenes = []

    def build(size):
        scenes.append(Scene(size))
        return scenes[-1]

    yield build
    for one in scenes:
        one.go_on.release(100)
        one.pool.stop()


def test_as_many_threads_as_there_is_work_for(scene):
    """One by one up to the size; none is started while one is free."""
    before = set(threading.enumerate())
    scene = scene(3)
    first, second = connection("a"), connection("b")
    scene.give(first)
    scene.finish()
    assert scene.pool.take_answered() is first
    scene.give(second)
    assert set(scene.names) == {"preforkd-thread-1"}
    assert len(set(threading.enumerate()) - before) == 1
    scene.give(connection("c"), connection("d"))
    assert set(scene.names) == {f"preforkd-thread-{number}" for number in (1, 2, 3)}
    assert scene.pool.free == 0
    scene.finish(3)


def test_the_slot_shows_the_oldest_request(scene):
    """It is the one that may be late; when it was answered, the next one is shown."""
    scene = scene(3)
    given = [connection("old"), connection("new"), connection("newer")]
    for one in given:
        scene.give(one)
    assert scene.slot_writer.said == ["old", "busy"]
    assert scene.pool.oldest is given[0]
    scene.finish()
    given.remove(scene.pool.take_answered())
    assert scene.slot_writer.said[-3:] == ["idle", given[0].request.cached.line, "busy"]
    assert scene.pool.oldest is given[0]
    scene.finish(2)
    assert {scene.pool.take_answered(), scene.pool.take_answered()} == set(given)
    assert scene.pool.take_answered() is None
    assert scene.slot_writer.said[-1] == "idle"
    assert scene.pool.idle
    assert scene.pool.oldest is None


def test_it_can_end_and_begin_again(scene):
    """Before a fork there is no thread; afterwards there is one as soon as there is work."""
    before = set(threading.enumerate())
    scene = scene(2)
    scene.give(connection("a"))
    assert set(threading.enumerate()) - before
    scene.finish()
    scene.pool.take_answered()
    scene.pool.stop()
    assert not set(threading.enumerate()) - before
    scene.give(connection("b"))
    scene.finish()
    assert scene.pool.take_answered() is not None


def test_without_threads_the_loop_answers_itself(scene, monkeypatch, caplog):
    """The system grants none: said once, and every request is answered."""
    scene = scene(2)
    scene.go_on.release(2)

    def refused(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    for line in ("a", "b"):
        scene.pool.submit(connection(line))
        assert scene.pool.take_answered() is not None
    assert scene.names == [threading.current_thread().name] * 2
    assert (
        caplog.text.count(
            "cannot start a thread; 0 threads answer requests: can't start new thread"
        )
        == 1
    )
