"""Exceptions of the application's own signal handlers that come while it has no request."""

import os
import signal
import socket

import pytest

from tests.process.service import ask

SIZE = 30_000_000
HANDLER = """
import signal, threading, time
class Late({base}):
    pass
def late(*_):
    raise Late("too late")
signal.signal(signal.SIGALRM, late)
"""
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"x" * 30_000_000 if environ["PATH_INFO"] == "/large" else b"ok"]
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({{"type": kind + ".complete"}})
            if kind == "lifespan.shutdown":
                return
    body = b"x" * 30_000_000 if scope["path"] == "/large" else b"ok"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": body}})
"""
STREAM = """
def app(connection, peer):
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\nok")
"""
CASES = {"wsgi": WSGI, "asgi": ASGI, "stream": STREAM}


def download(address):
    """Ask for the large answer, and wait until it begins."""
    sock = socket.create_connection(address, timeout=30)
    sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"200 OK" in sock.recv(100)
    return sock


@pytest.mark.parametrize("base", ["Exception", "TimeoutError", "BaseException", "SystemExit"])
@pytest.mark.parametrize("kind", CASES)
def test_an_exception_between_requests_costs_nobody_anything(service, kind, base):
    """It is logged; the worker takes no more, and who is being sent an answer gets all of it."""
    code = HANDLER.format(base=base) + CASES[kind].format()
    address = service.serve("late_app", code, "workers: 1", f"{kind}:late_app:app")
    (worker,) = service.workers()
    sock = download(address) if kind != "stream" else None
    requests = int(kind != "stream")
    service.until(lambda status: status["workers"][0]["requests"] == requests)
    os.kill(worker, signal.SIGALRM)
    service.until(lambda _: "too late" in service.log)
    service.until(lambda _: worker not in service.workers())
    assert ask(address).endswith(b"ok") or b"ok" in ask(address)
    if sock is not None:
        count = 0
        while piece := sock.recv(1 << 20):
            count += piece.count(b"x")
        sock.close()
        assert count >= SIZE - 100
    service.until(lambda status: len(status["workers"]) == 1 and service.workers() != [worker])
    assert "exit status 1" not in service.log
    assert "critical" not in service.log.lower()
