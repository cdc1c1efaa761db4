"""Loading an application with its hooks, wherever that happens."""

import os
import signal
import sys

import pytest

from preforkd.apps import lazy_imports, loading
from preforkd.config.settings import AppSettings, Settings
from preforkd.errors import ApplicationError, ConfigurationError
from preforkd.linux.unpatched import UnpatchedModules

CODE = """
import signal
calls = []
signal.signal(signal.SIGTERM, lambda *_: None)

def app(environ, start_response):
    calls.append(environ["PATH_INFO"])
    start_response("200 OK", [])
    return []

def {hook}():
    calls.append("{hook}")
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a module with this hook; return the application, its hooks, and what was called."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def loaded(name, hook, *, preload):
        (tmp_path / f"{name}.py").write_text(CODE.format(hook=hook))
        app = AppSettings(target=f"wsgi:{name}:app", warm_up=("/warm",), preload=preload)
        result = loading.load(Settings(app=app, hooks=name), UnpatchedModules())
        return *result, sys.modules[name].calls

    yield loaded
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def test_it_is_imported_warmed_up_and_its_hook_is_called(load):
    """In this order; a signal handler that it installs meanwhile is removed."""
    application, hooks, calls = load("loaded_once", "zygote_loaded", preload=True)
    assert application is sys.modules["loaded_once"].app
    assert calls == ["/warm", "zygote_loaded"]
    assert signal.getsignal(signal.SIGTERM).__module__ == "preforkd.linux.process"
    assert hooks.call("zygote_loaded") == ""


def test_lazy_imports_are_resolved_before_the_hook(load, monkeypatch):
    """In the zygote only: the hook can close what the imported modules have opened."""
    resolved = []
    monkeypatch.setattr(
        lazy_imports, "resolve", lambda: resolved.append(list(sys.modules["loaded_lazily"].calls))
    )
    load("loaded_lazily", "zygote_loaded", preload=True)
    load("loaded_by_a_worker", "worker_started", preload=False)
    assert resolved == [["/warm"]]


def test_without_preload_it_is_warmed_up_and_a_hook_of_the_zygote_is_refused(load):
    """The zygote does not load it, so the hook would never be called; the others are found."""
    _, hooks, calls = load("loaded_by_worker", "worker_started", preload=False)
    assert calls == ["/warm"]
    hooks.call("worker_started")
    assert calls == ["/warm", "worker_started"]
    with pytest.raises(ConfigurationError, match="zygote_loaded is not called") as caught:
        load("loaded_in_vain", "zygote_loaded", preload=False)
    assert "worker_started" in caught.value.hint


def test_descriptors_of_our_own_are_demanded_back():
    """Closed, or with something else at their number: the application is to blame."""
    reader, writer = os.pipe()
    ours = loading.identities([reader, writer])
    loading.check_descriptors(ours)
    os.dup2(0, writer)
    with pytest.raises(ApplicationError, match="has closed descriptors that are not its own"):
        loading.check_descriptors(ours)
    os.close(writer)
    with pytest.raises(ApplicationError):
        loading.check_descriptors(ours)
    os.close(reader)
