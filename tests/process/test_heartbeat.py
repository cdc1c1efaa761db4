"""Application code that keeps a worker outside any request: it is found out, and the worker replaced."""

import pytest

from tests.process.service import ask

HANG = """
import signal, threading, time
def hang(*_):
    open("hangs", "w").close()
    time.sleep(3600)
"""
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    if environ["PATH_INFO"] == "/hang":
        signal.signal(signal.SIGALRM, hang)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
    return [b"ok"]
"""
ASGI = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["path"] == "/hang":
        asyncio.get_running_loop().call_later(0.3, hang)
    if scope["path"] == "/block":
        hang()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
STREAM = """
def app(connection, peer):
    if b"/hang" in connection.recv(4096):
        signal.signal(signal.SIGALRM, hang)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nok")
"""
CASES = {"wsgi": WSGI, "asgi": ASGI, "stream": STREAM}


@pytest.mark.parametrize("kind", CASES)
def test_a_worker_that_hangs_outside_a_request_is_replaced(service, kind):
    """A signal handler, a callback of the loop: its stacks are logged, and who waits is answered."""
    settings = "workers: 1\ntimeouts: {heartbeat: 1s}"
    address = service.serve("site_app", HANG + CASES[kind], settings, f"{kind}:site_app:app")
    (worker,) = service.workers()
    assert ask(address, "/hang").endswith(b"ok")
    service.until(lambda _: (service.folder / "hangs").exists())
    assert ask(address).endswith(b"ok")
    assert "its event loop has not run" in service.log
    assert "in hang" in service.log
    service.until(lambda status: [row["state"] for row in status["workers"]] == ["ready"])
    assert service.workers() != [worker]


def test_a_request_that_blocks_an_asyncio_loop_is_found(service):
    """It is not excused by being a request, with no timeouts.request: all other clients wait for it."""
    settings = "workers: 1\ntimeouts: {heartbeat: 1s}"
    address = service.serve("site_app", HANG + ASGI, settings, "asgi:site_app:app")
    assert ask(address, "/block") == b""
    assert "its event loop has not run" in service.log
    assert ask(address).endswith(b"ok")
