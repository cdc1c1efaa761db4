"""What the master does when its own parts fail; the rest is proven with real processes."""

from types import SimpleNamespace

import pytest

from preforkd.config.configuration import Configuration
from preforkd.config.settings import AppSettings, Settings, WorkersSettings
from preforkd.core import events as ev
from preforkd.core.lifecycle import State
from preforkd.core.model import Role
from preforkd.linux.sd_notify import Notifier
from preforkd.linux.socket_activation import Passed
from preforkd.loop import Loop
from preforkd.supervisor import eventlog, master as module
from preforkd.supervisor.listeners import Listeners
from preforkd.supervisor.master import Master

SETTINGS = Settings(app=AppSettings(target="wsgi:site:app"), workers=WorkersSettings(count=2))


class Store:
    def store(self, name, descriptors):
        pass

    def forget(self, name):
        pass


@pytest.fixture
def master(monkeypatch):
    """A master in service with generation 1, whose processes are known to the scoreboard only."""
    # Both would change the process that runs the tests.
    monkeypatch.setattr(module.logs, "configure", lambda *_settings: None)
    monkeypatch.setattr(module, "Title", lambda: SimpleNamespace(set=lambda _text: None))
    loop, notifier = Loop(), Notifier()
    loaded = Configuration(SETTINGS)
    master = Master(
        loop, lambda: loaded, loaded, Listeners(Passed(), Store()), notifier, environment={}
    )
    for fact in (
        ev.GenerationRequested(1),
        ev.SpawnZygote(1, 1),
        ev.ZygoteSpawned(1, 10),
        ev.ZygoteLoaded(1),
    ):
        master.board.apply(fact, 0.0)
    for worker in (1, 2):
        master.board.apply(ev.ForkWorker(worker, worker, 1, 1), 0.0)
        master.board.apply(ev.WorkerForked(worker, 20 + worker), 0.0)
        master.board.apply(ev.WorkerReady(worker), 0.0)
        master.board.apply(ev.ServeWorker(worker), 0.0)
    master.board.generations[1].role = Role.CURRENT
    master.state, master._generation = State.SERVING, 1
    yield master
    loop.close()


def reload(master, read, monkeypatch):
    """Reload with what this returns, or raises; return the answer."""
    answers = []
    monkeypatch.setattr(module, "run_in_thread", lambda _loop, _name, work, done: done(work))
    master._read = read
    master.reload(answers.append, fresh=False)
    return answers


def fail(*_arguments, **_more):
    raise TypeError("of no use")


def test_a_reload_that_fails_by_a_bug_ends(master, monkeypatch):
    """While the file is read, or when the generation begins: there is an answer, and nothing else changes."""
    (answer,) = reload(master, fail, monkeypatch)
    assert (answer.ok, answer.blame) == (False, "internal")
    assert "TypeError: of no use" in answer.message
    assert master.state is State.SERVING
    monkeypatch.setattr(module, "pair", fail)
    other = Configuration(
        Settings(app=AppSettings(target="wsgi:site:other"), workers=WorkersSettings(count=7))
    )
    (answer,) = reload(master, lambda: other, monkeypatch)
    assert (answer.ok, answer.blame) == (False, "internal")
    assert master.state is State.SERVING
    assert master.limits.target == 2
    assert "of no use; fix that, then reload again" in master._status_line()


def test_reloads_that_are_requested_during_one_become_one_that_follows(master, monkeypatch):
    """Neither lost nor run twice: each request is answered by the reload that began after it."""
    reads, answered = [], []
    monkeypatch.setattr(
        module, "run_in_thread", lambda _loop, _name, work, done: reads.append((work, done))
    )
    monkeypatch.setattr(master, "_read", fail)

    def turn():
        master.loop.call_soon(master.loop.stop)
        master.loop.run()

    def read(number):
        work, done = reads[number]
        done(work)

    for name in ("first", "second", "third"):
        master.reload(lambda answer, name=name: answered.append((name, answer.ok)), fresh=False)
    assert len(reads) == 1
    read(0)
    assert answered == [("first", False)]
    turn()
    assert len(reads) == 2
    assert master.state is State.RELOADING
    read(1)
    assert answered[1:] == [("second", False), ("third", False)]
    turn()
    assert len(reads) == 2
    assert master.state is State.SERVING


def test_sockets_that_cannot_be_created_end_a_reload(master, monkeypatch):
    """Without descriptors left, a generation cannot begin; that is the system's."""

    def exhausted():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(module, "pair", exhausted)
    other = Configuration(
        Settings(app=AppSettings(target="wsgi:site:other"), workers=WorkersSettings(count=2))
    )
    (answer,) = reload(master, lambda: other, monkeypatch)
    assert (answer.ok, answer.blame) == (False, "system")
    assert "Too many open files" in answer.message
    assert master.state is State.SERVING


def test_an_effect_that_fails_does_not_keep_the_others_from_happening(master, monkeypatch):
    """The client is answered, though the service manager could not be notified."""
    monkeypatch.setitem(module._EFFECTS, module.Effect.ANNOUNCE_RELOADING, fail)
    monkeypatch.setitem(module._EFFECTS, module.Effect.ANNOUNCE_READY, fail)
    (answer,) = reload(master, fail, monkeypatch)
    assert not answer.ok
    assert master.state is State.SERVING


def test_what_cannot_be_logged_is_recorded(master, monkeypatch):
    """A fact is never lost for its line in the log."""
    monkeypatch.setattr(eventlog, "log_event", fail)
    master._record(ev.WorkerExited(1, "killed by SIGKILL"))
    assert 1 not in master.board.workers


def test_a_smaller_size_is_announced_when_it_is_true(master, monkeypatch):
    """From two workers to one, live: STATUS never shows that 2 of 1 are ready."""
    sent = []
    monkeypatch.setattr(master._notifier, "ready", sent.append)
    one = Configuration(Settings(app=SETTINGS.app, workers=WorkersSettings(count=1)))
    (answer,) = reload(master, lambda: one, monkeypatch)
    assert answer.ok
    assert sent == ["1 of 1 workers ready, 0 busy, generation 1; 1 draining"]
