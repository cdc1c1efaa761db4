"""Nothing on the path of a request needs the collector: what is finished with is freed at once."""

import contextlib
import gc
import socket
import ssl
import struct
import tempfile
import time

import pytest

from preforkd.config.settings import (
    HttpSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all, serving

HEAD = b" HTTP/1.1\r\nHost: h\r\n"
CLOSE = b"Connection: close\r\n\r\n"
REQUESTS = [
    b"GET /" + HEAD + CLOSE,
    b"HEAD /parts" + HEAD + CLOSE,
    b"GET /parts" + HEAD + CLOSE,
    b"GET /file" + HEAD + CLOSE,
    b"GET /write" + HEAD + CLOSE,
    b"GET /fails" + HEAD + CLOSE,
    b"GET /fails_late" + HEAD + CLOSE,
    b"GET /close_fails" + HEAD + CLOSE,
    b"POST /" + HEAD + b"Content-Length: 3\r\n" + CLOSE + b"abc",
    b"POST /" + HEAD + b"Transfer-Encoding: chunked\r\n" + CLOSE + b"1\r\na\r\n0\r\n\r\n",
    b"POST /" + HEAD + b"Content-Length: 300\r\n" + CLOSE + b"a" * 300,
    b"POST /" + HEAD + b"Content-Length: 3000\r\n" + CLOSE,
    b"GET /" + HEAD + b"\r\nGET /parts" + HEAD + CLOSE,
    b"nonsense\r\n\r\n",
]
UNFINISHED = [
    b"",
    b"GET /",
    b"POST /" + HEAD + b"Content-Length: 9\r\n\r\nabc",
    b"GET /large" + HEAD + b"\r\n",
]
"""What a client sends that resets its connection then."""


class Body:
    def __init__(self, parts, failure):
        self._parts, self._failure = parts, failure

    def __iter__(self):
        yield from self._parts
        if self._failure == "late":
            raise ValueError("late")

    def close(self):
        if self._failure == "close":
            raise ValueError("close")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise ValueError("fails")
    if path == "/large":
        start_response("200 OK", [("Content-Length", "9000000")])
        return [b"x" * 9_000_000]
    if path == "/write":
        start_response("200 OK", [])(b"written")
        return []
    start_response("200 OK", [])
    if path == "/file":
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
        file.write(b"x" * 9_000_000)
        file.seek(0)
        return environ["wsgi.file_wrapper"](file)
    if path == "/":
        return [b"hello"]
    failure = {"/fails_late": "late", "/close_fails": "close"}.get(path)
    return Body([b"a", b"b"], failure)


def listening(*, tls, proxied):
    """Settings whose one listener, the test's, is like this."""
    return Settings(
        listen=(ListenSettings(address="", name="test", tls=tls, proxy_protocol=proxied),),
        tls=TlsSettings(certificate=CERTIFICATE, key=KEY) if tls else TlsSettings(),
        proxy=ProxySettings(trusted=("127.0.0.1",)),
        http=HttpSettings(spool=100, max_body=1000),
    )


def enter(worker, *, tls, proxied):
    """Connect a client as far as its first request."""
    sock = worker.connect()
    if proxied:
        sock.sendall(b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n")
    if not tls:
        return sock
    context = ssl.create_default_context(cadata=CERTIFICATE)
    return context.wrap_socket(sock, server_hostname="localhost")


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def talk(worker, how):
    """Let clients of all sorts come and go."""
    for request in REQUESTS:
        with enter(worker, **how) as sock, contextlib.suppress(OSError):
            sock.sendall(request)
            read_all(sock)
    for data in UNFINISHED:
        sock = enter(worker, **how)
        sock.sendall(data)
        reset(sock)
    for data in (b"", b"PRO", b"\x16\x03\x01", b"PROXY nonsense\r\n"):
        sock = worker.connect()
        sock.sendall(data)
        reset(sock)
    deadline = time.monotonic() + 20
    # One more, so that nothing of the last is in a variable of the loop.
    with enter(worker, **how) as sock:
        sock.sendall(REQUESTS[0])
        read_all(sock)
    while worker.loop._connections:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("proxied", [False, True])
def test_nothing_is_left_for_the_collector(tls, proxied, caplog):
    """Neither of a connection nor of its requests, however they end."""
    caplog.set_level("CRITICAL")  # records would keep what they tell of
    how = {"tls": tls, "proxied": proxied}
    with serving(application, whole=listening(**how)) as worker:
        talk(worker, how)
        gc.collect()
        gc.disable()
        try:
            talk(worker, how)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = {type(one).__qualname__ for one in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not found & {
        "Connection",
        "Response",
        "RequestReader",
        "Request",
        "TlsSocket",
        "SSLSocket",
        "socket",
        "ProxyHeader",
    }
