"""Limits of the WSGI server: requests, rates of bodies, the spool."""

import contextlib
import threading
import time

import pytest

from preforkd.config.settings import (
    HttpSettings,
    Settings,
)
from tests.worker.http_settings import (
    CLOSE,
    GET,
    show_client,
)
from tests.worker.serving import read_all, read_answer, serving


def test_max_requests_closes_the_connection():
    """The last request gets Connection: close."""
    with serving(show_client, max_requests=3) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b"") * 5)
        answers = read_all(sock)
        assert answers.count(b"200 OK") == 3
        assert answers.count(b"Connection: close") == 1


def test_pipelined_requests_delay_no_other_connection():
    """Another client is answered between the requests of a pipeline that has arrived."""
    order = []
    held, flood_is_there, both_have_asked = threading.Event(), threading.Event(), threading.Event()

    def note(environ, start_response):
        order.append(environ["PATH_INFO"])
        if order[-1] == "/hold":
            held.set()
            flood_is_there.wait(20)
        elif order[-1] == "/flood":
            both_have_asked.wait(20)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    with serving(note) as worker, worker.connect() as flood, worker.connect() as other:
        for sock in (flood, other):
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
        with worker.connect() as holder:
            holder.sendall(GET % (b"/hold", b""))
            assert held.wait(20)
            flood.sendall(GET % (b"/flood", b"") * 300)
            flood_is_there.set()
            while "/flood" not in order:
                assert worker.thread.is_alive()
            other.sendall(GET % (b"/other", b""))
            both_have_asked.set()
            read_answer(other)
        answers = b""
        while answers.count(b"200 OK") < 300:
            answers += flood.recv(1 << 20)
    assert order.index("/other") < 50


def test_a_body_below_the_minimum_rate_is_refused():
    """A body below http.min_rate gets 408 after body_timeout."""
    with serving(show_client, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < begun + 20
                sock.sendall(b"x")
                threading.Event().wait(0.02)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_minimum_rate_holds_in_every_window(chunked):
    """A fast beginning of a body does not make up for single bytes afterwards."""
    head, part = b"Content-Length: 900000\r\n\r\n" + b"x" * 500_000, b"x"
    if chunked:
        head = b"Transfer-Encoding: chunked\r\n\r\n7a120\r\n" + b"x" * 500_000 + b"\r\n"
        part = b"1\r\nx\r\n"
    with serving(show_client, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\n" + head)
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < begun + 20
                sock.sendall(part)
                threading.Event().wait(0.02)


def test_a_body_at_the_minimum_rate_is_served():
    """Over several windows of body_timeout."""
    with serving(show_client, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n")
        for _ in range(40):
            sock.sendall(b"x" * 100)
            threading.Event().wait(0.02)
        assert b"200 OK" in sock.recv(1000)


def test_spool_total_bounds_all_bodies_of_a_worker(caplog):
    """A body beyond it gets 503, logged once; a client that leaves releases its part."""
    settings = Settings(http=HttpSettings(spool=10, max_body=1000, spool_total=1000))
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\nConnection: close\r\n\r\n"
    with serving(show_client, whole=settings) as worker:

        def ask_until(status):
            deadline = time.monotonic() + 20
            while not worker.ask(head + b"x" * 900).startswith(b"HTTP/1.1 %d " % status):
                assert time.monotonic() < deadline  # the other was not read, or not missed, yet

        with worker.connect() as slow:
            slow.sendall(head + b"x" * 800)
            ask_until(503)
            ask_until(503)
        ask_until(200)
    assert caplog.text.count("request bodies use all of http.spool_total") == 1


def test_a_full_disk_fails_one_request(monkeypatch, caplog):
    """It gets 503, and the next request is served."""

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preforkd.http.body.tempfile.TemporaryFile", full)
    with serving(show_client, spool=10) as worker:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n"
        assert worker.ask(head + b"x" * 20).startswith(b"HTTP/1.1 503 ")
        assert b"200 OK" in worker.ask(GET % (b"/", CLOSE))
    assert "No space left" in caplog.text
