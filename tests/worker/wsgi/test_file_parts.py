"""Files and streams as answers: sent by sendfile(2) or over TLS, closed afterwards, part by part."""

import os
import tempfile
import threading

import pytest

from tests.worker.http_settings import CLOSE, GET, SECURE, connect_tls
from tests.worker.serving import read_all, serving


def test_a_file_over_tls():
    """The file is read and encrypted, as sendfile(2) cannot be used."""
    with tempfile.TemporaryFile() as file:
        data = os.urandom(2_000_000)
        file.write(data)

        def send(environ, start_response):
            file.seek(0)
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](os.fdopen(os.dup(file.fileno()), "rb"))

        with serving(send, whole=SECURE) as worker, connect_tls(worker) as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert read_all(sock).endswith(data)


@pytest.mark.parametrize("whole", [None, SECURE], ids=["plain", "tls"])
def test_a_file_that_is_truncated_while_it_is_sent(tmp_path, caplog, whole):
    """The connection is cut off, as the length was announced; the log names the file and the missing bytes."""
    path = tmp_path / "download"
    path.write_bytes(bytes(20_000_000))

    def send(environ, start_response):
        start_response("200 OK", [("Content-Length", "20000000")])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with serving(send, whole=whole) as worker:
        with connect_tls(worker) if whole else worker.connect() as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert sock.recv(100)
            os.truncate(path, 0)
            taken = len(read_all(sock))
        assert taken < 20_000_000
        told = [text for text in caplog.messages if "was truncated while it was sent" in text]
    assert len(told) == 1
    assert told[0].startswith(f"{path} was sent incompletely, ")


def test_a_file_is_sent_and_then_closed():
    """From its current offset; closed when the slow client has received all of it."""
    with tempfile.TemporaryFile() as file:
        data = os.urandom(20_000_000)
        file.write(data)
        file.flush()
        closed = threading.Event()

        def send(environ, start_response):
            file.seek(10)
            start_response("200 OK", [("Content-Length", str(len(data) - 10))])
            wrapper = environ["wsgi.file_wrapper"](file)
            wrapper.close = closed.set
            return wrapper

        with serving(send) as worker, worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            assert sock.recv(100)
            assert not closed.is_set()
            assert worker.ask(b"HEAD" + (GET % (b"/", CLOSE))[3:]).endswith(b"\r\n\r\n")
            closed.clear()
            sock.sendall(GET % (b"/", CLOSE))
            assert data[-1000:] in read_all(sock)
            assert closed.wait(20)
        closed.clear()
        with serving(send) as worker:
            with worker.connect() as sock:
                sock.sendall(GET % (b"/", b""))
                sock.recv(10)
            assert closed.wait(20)  # also when the client leaves


def test_events_reach_the_client_one_by_one():
    """Each part of a stream arrives before the application produces the next."""
    go = threading.Semaphore(0)

    def stream(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        for number in range(3):
            yield b"data: %d\n\n" % number
            assert go.acquire(timeout=20)

    with serving(stream) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        data = b""
        for number in range(3):
            while b"data: %d" % number not in data:
                data += sock.recv(1000)
            go.release()
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(1000)
