"""The load of an application in a worker; the process tests have the rest."""

import logging
import os

import pytest

from preforkd.config.settings import AppSettings, Settings
from preforkd.errors import ApplicationError
from preforkd.logs import logs
from preforkd.worker import loading

CODE = """
import os
calls = []
os.close({descriptor})

def app(environ, start_response):
    pass

def after_fork():
    calls.append("after_fork")
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a module that closes a descriptor of its own, or this one of the worker's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr("preforkd.apps.loading.process.ignore_master_signals", lambda: None)

    def loaded(name, descriptor, ours):
        (tmp_path / f"{name}.py").write_text(CODE.format(descriptor=descriptor))
        app = AppSettings(target=f"wsgi:{name}:app", preload=False)
        return loading.load("wsgi", Settings(app=app, hooks=name), ours)

    return loaded


def test_the_hook_after_fork_is_called_and_the_costs_are_logged(load, caplog):
    """The application exists only after the fork: its hook runs then."""
    caplog.set_level(logging.INFO, "preforkd.worker")
    application, _ = load("loaded_late", "os.open(os.devnull, os.O_RDONLY)", [])
    assert application.__globals__["calls"] == ["after_fork"]
    assert "loaded the application in 0." in caplog.text
    assert "MB that other workers do not share" in caplog.text


def test_a_descriptor_of_the_worker_may_not_be_closed(load):
    """The application is to blame."""
    reader, writer = os.pipe()
    with pytest.raises(ApplicationError, match="closed descriptors that are not its own"):
        load("loaded_and_closed", writer, [reader, writer])
    os.close(reader)
