"""Whether WebSockets can be served, where the library is installed and where it is not."""

import sys

import pytest

from preforkd.worker.asgi import websocket_support


@pytest.fixture
def load():
    websocket_support.load.cache_clear()
    yield websocket_support.load
    websocket_support.load.cache_clear()


def test_with_the_library_the_module_is_returned(load, caplog):
    pytest.importorskip("websockets")
    module = load()
    assert module is load()
    assert callable(module.start_websocket)
    assert not caplog.records


def test_without_the_library_there_is_one_warning_with_a_hint(load, caplog, monkeypatch):
    """However many clients ask for a WebSocket."""
    for name in ("websocket", "websocket_connection", "frames"):
        monkeypatch.delitem(sys.modules, f"preforkd.worker.asgi.{name}", raising=False)
    for name in ("exceptions", "frames", "extensions.permessage_deflate"):
        monkeypatch.setitem(sys.modules, f"websockets.{name}", None)
    monkeypatch.setitem(sys.modules, "websockets", None)
    assert load() is None
    assert load() is None
    [record] = caplog.records
    assert (record.name, record.levelname) == ("preforkd.worker", "WARNING")
    assert "pip install 'preforkd[asgi]'" in record.getMessage()


def test_the_refusal():
    assert websocket_support.MISSING.status == "501 Not Implemented"
    assert "WebSockets" in websocket_support.MISSING.reason
