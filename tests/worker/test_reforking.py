"""A worker that is ordered to fork the next zygote: what it reports, and what becomes of the descriptors."""

import contextlib
import os
from types import SimpleNamespace

import pytest

from preforkd.config.settings import AppSettings, MemorySettings, ReforkSettings, Settings
from preforkd.errors import Blame
from preforkd.ipc import messages
from preforkd.linux import fork
from preforkd.worker import reforking
from preforkd.worker.refork_guard import ReforkGuard
from preforkd.worker.reforking import ReforkHandler, guard_for

WSGI = Settings(app=AppSettings(target="wsgi:a:b"))


class Scene:
    """A handler whose surroundings do nothing; ``reports`` is what it sends."""

    def __init__(self, settings=WSGI, *, hook="", guard=None):
        self.reports = []
        self.handler = ReforkHandler(
            settings,
            SimpleNamespace(call=lambda _name: hook),
            SimpleNamespace(),
            self.reports.append,
            SimpleNamespace(busy_outside_request=contextlib.nullcontext),
            SimpleNamespace(exempt=contextlib.nullcontext),
            lambda: [3, 4],
            guard,
        )

    def order(self, *, guarded=False):
        """Give the order, and check that both descriptors are closed; return the report."""
        descriptors = os.pipe()
        self.handler(messages.ReforkRequest(7, guarded), descriptors)
        for descriptor in descriptors:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
        (report,) = self.reports
        return report

    def refusal(self, *, guarded=False):
        """Return the reason for which an order is refused."""
        report = self.order(guarded=guarded)
        assert report.zygote == 7
        assert report.failure.blame is Blame.APPLICATION
        return report.failure.reason


@pytest.fixture
def unforked(monkeypatch):
    """Let a fork fail the test."""
    monkeypatch.setattr(fork, "double_fork", lambda: pytest.fail("it was forked"))


def test_what_cannot_be_forked_is_refused(unforked):
    """Before the hook is called."""
    scene = Scene(Settings(app=AppSettings(target="asgi:a:b")), hook="not called")
    assert "kind asgi cannot be forked" in scene.refusal()


def test_a_hook_that_fails_refuses(unforked):
    """Its reason is reported; the guard is not asked."""
    guard = SimpleNamespace(obstacles=lambda own: pytest.fail("it was asked"))
    scene = Scene(hook="the hook failed", guard=guard)
    assert scene.refusal(guarded=True) == "the hook failed"


def test_a_guarded_order_needs_a_guard(unforked):
    """A worker from before the setting has none."""
    reason = "the worker was started before memory.refork: once was set"
    assert Scene().refusal(guarded=True) == reason


def test_what_the_guard_finds_refuses(unforked):
    """It is asked without preforkd's own descriptors and those of the order."""
    asked = []
    guard = SimpleNamespace(obstacles=lambda own: asked.append(own) or "a thread")
    reason = Scene(guard=guard).refusal(guarded=True)
    assert reason.endswith("the worker has what must not be cloned: a thread")
    assert asked[0][:2] == [3, 4]
    assert len(asked[0]) == 4


@pytest.mark.parametrize("guarded", [False, True])
def test_a_fork_is_reported(monkeypatch, guarded):
    """Then the new process is let go on; an order without guard does not ask the guard."""
    read, write = os.pipe()
    monkeypatch.setattr(fork, "double_fork", lambda: (1234, write))
    found = "" if guarded else "a thread"
    scene = Scene(guard=SimpleNamespace(obstacles=lambda own: found))
    assert scene.order(guarded=guarded) == messages.Reforked(7, 1234)
    assert os.read(read, 1) == b""
    os.close(read)


def test_a_fork_that_fails_is_reported(monkeypatch):
    """The exit handlers belong to this worker again."""
    restored = []

    def fails():
        raise OSError(11, "Resource temporarily unavailable")

    deferred = SimpleNamespace(defer=lambda: None, restore=lambda: restored.append(True))
    monkeypatch.setattr(fork, "double_fork", fails)
    monkeypatch.setattr(reforking.exit_handlers, "DeferredExitHandlers", lambda: deferred)
    assert Scene().refusal() == "fork: Resource temporarily unavailable"
    assert restored == [True]


@pytest.mark.parametrize(("after", "guarded"), [(0, False), (100, False), ("once", True)])
def test_which_workers_have_a_guard(after, guarded):
    """Only those of memory.refork: once."""
    settings = Settings(memory=MemorySettings(refork=ReforkSettings(after=after)))
    assert isinstance(guard_for(settings), ReforkGuard) is guarded
