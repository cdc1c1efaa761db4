"""Files and streams as answers: sent by sendfile(2) or over TLS, closed afterwards, part by part."""

import errno
import os
import socket
import tempfile
import threading

import pytest

from preforkd.http.bounds import Budget
from preforkd.worker.wsgi.file_parts import AnswerFile, FilePart
from preforkd.worker.wsgi.response import ClientGoneError
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


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as file:
        file.write(bytes(range(256)) * 8192)  # 2 MiB
        file.flush()
        yield file


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


class Encrypting:
    """A socket with TLS, as far as parts of files use it: it takes ``room`` bytes, piece by piece."""

    def __init__(self, room, piece=1 << 30):
        self.room, self.piece, self.taken, self.largest = room, piece, b"", 0

    def send(self, data):
        self.largest = max(self.largest, len(data))
        data = data[: min(self.room, self.piece)]
        if not data:
            raise BlockingIOError
        self.room -= len(data)
        self.taken += data
        return len(data)


def test_a_part_goes_on_where_the_socket_was_full(file, ends):
    """From its offset, and no more than its count."""
    part, got = FilePart(file, 3, 1_000_000), b""
    while part.count:
        part.send(ends[0])
        assert part.offset + part.count == 1_000_003
        got += ends[1].recv(1 << 22)
    assert got == (bytes(range(256)) * 8192)[3:1_000_003]


def test_a_part_over_tls_is_read_in_blocks(file):
    """Of a megabyte at most; it goes on where the socket was full."""
    part, sock = FilePart(file, 3, 2_000_000), Encrypting(room=1_500_000, piece=400_000)
    part.send(sock)
    assert (part.offset, part.count) == (1_500_003, 500_000)
    assert sock.largest == 1 << 20
    sock.room = 1_000_000
    part.send(sock)
    assert part.count == 0
    assert sock.taken == (bytes(range(256)) * 8192)[3:2_000_003]


@pytest.mark.parametrize("secure", [False, True])
def test_a_file_that_cannot_be_sent_ends_the_connection(file, ends, secure, caplog, monkeypatch):
    """It is shorter, unreadable or closed: the log names it and what is missing; no client is to blame."""
    sock = Encrypting(1 << 30) if secure else ends[0]
    with pytest.raises(ClientGoneError, match="truncated"):
        FilePart(file, (2 << 20) - 10, 11).send(sock)
    assert "was sent incompletely, 1 bytes are missing: it was truncated" in caplog.text
    name = os.readlink(f"/proc/self/fd/{file.fileno()}")
    assert caplog.messages[0].startswith(name)
    assert caplog.records[0].name == "preforkd.worker"

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread" if secure else "sendfile", fails)
    with pytest.raises(ClientGoneError, match="Input/output error"):
        FilePart(file, 0, 5).send(sock)
    assert "5 bytes are missing" in caplog.text
    file.close()
    with pytest.raises(ClientGoneError, match="a file: the application closed it"):
        FilePart(file, 0, 5).send(sock)


def test_a_client_that_leaves_while_a_file_is_sent(file, ends, caplog):
    """That is not logged; an OSError of a signal handler is raised as it is."""
    ends[1].close()
    with pytest.raises(ClientGoneError):
        FilePart(file, 0, 5).send(ends[0])
    assert not caplog.records
    error = OSError("in a handler")
    sock = Encrypting(1)
    sock.send = lambda _: (_ for _ in ()).throw(error)
    with pytest.raises(OSError, match="in a handler") as raised:
        FilePart(file, 0, 5).send(sock)
    assert raised.value is error


def test_a_spool_keeps_its_parts_in_their_order_and_counts_them(monkeypatch):
    """pwrite(2) may take less than it is given; all bytes of the budget are given back at the end."""
    budget, pwrite = Budget(memory=0, files=20), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at))
    spool, sock = AnswerFile(budget), Encrypting(1 << 20)
    spool.append(b"first ")
    spool.part.send(sock)
    spool.append(memoryview(b"second"))
    assert (spool.size, spool.part.count) == (12, 6)
    spool.part.send(sock)
    assert sock.taken == b"first second"
    with pytest.raises(OSError, match="use all of their spool") as raised:
        spool.append(bytes(9))
    assert raised.value.errno == errno.ENOSPC
    assert spool.size == 12
    assert budget.take("files", 8)
    budget.give_back("files", 8)
    spool.close()
    assert budget.take("files", 20)
    assert not budget.take("files", 1)
    with pytest.raises(ValueError, match="closed"):
        spool.part.file.fileno()


def test_a_full_disk_keeps_nothing_of_a_part(monkeypatch):
    """Its bytes of the budget are free again."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    budget = Budget(memory=0, files=20)
    spool = AnswerFile(budget)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        spool.append(b"first")
    assert spool.size == 0
    assert budget.take("files", 20)
    spool.close()
