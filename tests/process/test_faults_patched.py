"""Applications that replace parts of the standard library, as gevent and eventlet do."""

import importlib.util

import pytest

from tests.process.faults import get, serve, whole_again

STAND_IN = """
# What preforkd must not use once it is replaced: whoever calls it is told so.
import _thread, os, queue, select, selectors, signal, socket, sys, threading, time

def _guarded(original, name):
    def replaced(*arguments, **named):
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("preforkd."):
            raise AssertionError(f"{caller} uses {name}")
        return original(*arguments, **named)
    return replaced

def patch_all():
    for module, names in (
        (_thread, ["start_new_thread", "allocate_lock", "start_joinable_thread"]),
        (threading, ["_start_new_thread", "_start_joinable_thread", "Lock", "_allocate_lock", "Thread",
                     "Event", "Semaphore", "get_ident"]),
        (os, ["fork", "read", "write", "waitpid", "close"]),
        (time, ["sleep"]),
        (socket, ["socketpair"]),
        (signal, ["signal"]),
        (queue, ["SimpleQueue"]),
    ):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, _guarded(getattr(module, name), f"{module.__name__}.{name}"))
    del select.epoll, select.poll
    class Socket(socket.socket):
        def __init__(self, *arguments, **named):
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.startswith("preforkd."):
                raise AssertionError(f"{caller} uses socket.socket")
            super().__init__(*arguments, **named)
    socket.socket = Socket
    selectors.DefaultSelector = selectors.SelectSelector
"""
WSGI = """
import socket, threading, time

def application(environ, start_response):
    size = 0
    while piece := environ["wsgi.input"].read(65536):
        size += len(piece)
    told = []
    thread = threading.Thread(target=lambda: (time.sleep(0.02), told.append("thread")))
    thread.start()
    thread.join()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1.0)
    start_response("200 OK", [])
    return [f"{size} {told[0]}".encode()]
"""
ASGI = """
async def application(scope, receive, send):
    pass
"""
STREAM = """
import time

def handle(connection, peer):
    time.sleep(0.02)
    connection.sendall(connection.recv(99).upper())
"""
PATCHES = {
    "stand_in": "import stand_in; stand_in.patch_all()\n",
    "gevent": "from gevent import monkey; monkey.patch_all()\n",
    "eventlet": "import eventlet; eventlet.monkey_patch()\n",
}


@pytest.fixture(params=PATCHES)
def patch(request, tmp_path):
    """Who patches, and how."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    if request.param != "stand_in" and importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param, PATCHES[request.param]


def test_a_wsgi_application_that_patches_is_served(service, tmp_path, patch):
    """Its workers answer, also while one is busy; they are reloaded, replaced, reforked and stopped."""
    who, how = patch
    (tmp_path / "patched.py").write_text(how + WSGI)
    serve(service, workers=1, target="wsgi:patched:application", directory=str(tmp_path))
    for path in ("/", "/slow", "/"):
        assert get(service.address, path) == (200, b"0 thread")
    before = set(service.workers())
    assert service.control("reload", "--fresh").returncode == 0
    whole_again(service, 1, before)
    assert get(service.address, "/") == (200, b"0 thread")
    before = set(service.workers())
    assert service.control("refork").returncode == 0
    service.until(lambda status: not before & {row["pid"] for row in status["workers"]})
    assert get(service.address, "/") == (200, b"0 thread")
    assert service.stop() == 0
    assert "is killed" not in service.log
    assert "AssertionError" not in service.log
    assert f"{who} has replaced parts of the standard library" in service.log


def test_a_stream_handler_that_patches_is_served(service, tmp_path, patch):
    """Each connection gets its answer."""
    import socket

    _, how = patch
    (tmp_path / "patched.py").write_text(how + STREAM)
    serve(service, workers=1, target="stream:patched:handle", directory=str(tmp_path))
    for _ in range(3):
        with socket.create_connection(service.address, timeout=30) as sock:
            sock.sendall(b"hello")
            assert sock.recv(99) == b"HELLO"
    assert service.stop() == 0


REFUSED = {
    "asgi:patched:application": (1, "asyncio", "serve a WSGI application"),
    "wsgi:patched:wsgi": (3, "workers.threads", "leave workers.threads out"),
}


@pytest.mark.parametrize("target", REFUSED)
def test_what_cannot_work_with_a_patch_is_refused(service, tmp_path, patch, target):
    """With the name of who patches and the way out, at once."""
    who, how = patch
    threads, words, hint = REFUSED[target]
    wsgi = (
        "def wsgi(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    (tmp_path / "patched.py").write_text(how + ASGI + wsgi)
    serve(service, target=target, directory=str(tmp_path), threads=threads, ready=False)
    assert service.wait() == 69
    assert f"{who} has replaced threads" in service.log
    assert words in service.log
    assert hint in service.log
