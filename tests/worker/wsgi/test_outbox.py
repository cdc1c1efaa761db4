"""What a client does not take at once: kept, bounded, and given up in the end."""

import contextlib
import socket
import time
from types import SimpleNamespace

import pytest

from preforkd.http.bounds import Budget
from preforkd.worker.wsgi.outbox import Outbox, OutputLimits
from tests.worker.serving import read_all, serving, wait_until

GET = b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
MIB = 1 << 20


class Stream:
    """Makes an answer of so many MiB in parts, each of its own content."""

    def __init__(self, size):
        self.size = size
        self.produced = 0

    def __call__(self, environ, start_response):
        start_response("200 OK", [("Content-Length", str(self.size * MIB))])
        return [b""] if environ["PATH_INFO"] == "/short" else self.parts()

    def parts(self):
        for number in range(self.size):
            self.produced += 1
            yield number.to_bytes(2) * (MIB // 2)

    def whole(self):
        return b"".join(number.to_bytes(2) * (MIB // 2) for number in range(self.size))


def lazy(worker):
    """Connect a client with a small window, so that little of an answer is on its way."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    sock.settimeout(20)
    sock.connect(worker.address)
    return sock


def test_a_slow_reader_of_a_stream_occupies_nobody():
    """What it does not take goes to a file, and the worker goes on; every byte arrives in its order."""
    stream = Stream(30)
    with serving(stream) as worker, lazy(worker) as sock:
        sock.sendall(GET % b"/")
        assert worker.ask(GET % b"/short").startswith(b"HTTP/1.1 200 ")
        assert stream.produced == 30
        assert read_all(sock).partition(b"\r\n\r\n")[2] == stream.whole()


def test_the_file_is_bounded():
    """When it is full the application waits, and goes on in memory when it is empty."""
    stream = Stream(40)
    with serving(stream, answer_spool=4 * MIB) as worker, lazy(worker) as sock:
        sock.sendall(GET % b"/")
        data = sock.recv(1000)
        assert stream.produced < 30
        assert (data + read_all(sock)).partition(b"\r\n\r\n")[2] == stream.whole()


def test_without_a_disk_the_client_is_waited_for(monkeypatch):
    """No file, no loss."""

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preforkd.worker.wsgi.file_parts.tempfile.TemporaryFile", full)
    stream = Stream(30)
    with serving(stream) as worker, lazy(worker) as sock:
        sock.sendall(GET % b"/")
        assert read_all(sock).partition(b"\r\n\r\n")[2] == stream.whole()


def pull(sock, size, pause):
    """Read so many bytes at a time, with a pause behind each; return how many came."""
    count = 0
    try:
        while data := sock.recv(size):
            count += len(data)
            time.sleep(pause)
    except ConnectionError:
        pass
    return count


@pytest.mark.parametrize("spool", [0, 64 * MIB])
def test_who_reads_slowly_but_steadily_is_served(spool):
    """The pauses between two moments when the socket is writable are longer than the patience."""

    def answer(environ, start_response):
        start_response("200 OK", [])
        return [b"x" * (3 * MIB)] if spool else (b"x" * 65536 for _ in range(96))

    how = {"body_timeout": 0.25, "min_rate": 1000, "answer_spool": spool}
    with serving(answer, **how) as worker, worker.connect() as sock:
        sock.sendall(GET % b"/")
        assert pull(sock, 65536, 0.02) > 3 * MIB


@pytest.mark.parametrize("spool", [0, 64 * MIB])
def test_who_hardly_reads_is_given_up(spool):
    """Less than http.min_rate over http.body_timeout: in the background, and where it is waited for."""
    stream = Stream(20)
    how = {"body_timeout": 0.2, "min_rate": 1 << 20, "answer_spool": spool}
    with serving(stream, **how) as worker, lazy(worker) as sock, lazy(worker) as other:
        sock.sendall(GET % b"/")
        assert pull(sock, 100, 0.001) < MIB  # what the kernel had is not delivered either
        other.sendall(GET % b"/short")
        assert b" 200 OK" in other.recv(100)


def test_a_large_answer_in_one_piece():
    """It is kept as the client reads, head and body in their order, and the connection goes on behind it."""
    body = b"".join(number.to_bytes(4) for number in range(4 * MIB))

    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    keep = GET.replace(b"Connection: close\r\n", b"")
    with serving(application) as worker, lazy(worker) as sock:
        sock.sendall(keep % b"/" + keep.replace(b"GET", b"HEAD") % b"/" + GET % b"/")
        first, head, last = read_all(sock).split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert first.partition(b"\r\n\r\n")[2] == body
        assert head.partition(b"\r\n\r\n")[2] == b""
        assert last.partition(b"\r\n\r\n")[2] == body
    with serving(lambda _, start: start("200 OK", []) and [body]) as worker:
        # Without a length of the application's own; the server counts.
        answer = worker.ask(GET % b"/").partition(b"\r\n\r\n")
        assert b"Content-Length: %d\r\n" % len(body) in answer[0] + b"\r\n"
        assert answer[2] == body


@pytest.mark.parametrize("size", [16 * 1024, 64 * 1024, 300_000])
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_body_that_has_arrived_is_taken_at_once(size, half_closed):
    """More than one look's worth in one go, and another request behind it: each is answered once, as sent."""
    seen = []

    def application(environ, start_response):
        seen.append(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    body = bytes(range(256)) * (size // 256)
    post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with serving(application) as worker, worker.connect() as sock:
        sock.sendall(post + GET % b"/")
        if half_closed:
            sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).count(b"HTTP/1.1 200 OK") == 2
    assert seen == [body, b""]


BLOCK = bytes(range(256)) * (8 * MIB // 256)


def whole(environ, start_response):
    """Answer with 8 MiB in one piece, or with a short one."""
    body = b"short" if environ["PATH_INFO"] == "/short" else BLOCK
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def begun(sock, path=b"/"):
    """Ask, and wait until the answer begins."""
    sock.sendall(GET % path)
    assert sock.recv(1) == b"H"


def in_memory(worker):
    """Return how many bytes of answers the worker keeps in memory, what was sent of them included."""
    connections = list(worker.loop._connections)
    parts = [part for connection in connections for part in list(connection.outbox._pending)]
    return sum(len(part.obj) for part in parts if isinstance(part, memoryview))


def left(worker):
    """Return what the worker's answers may still take, in memory and in files."""
    return dict(worker.loop._accepting._limits.budget._left)


def test_all_answers_together_take_so_much_memory():
    """Beyond it they wait in files; each client gets every byte, and what was taken is given back."""
    with serving(whole) as worker, contextlib.ExitStack() as stack:
        worker.loop._accepting._limits.budget._left["memory"] = 10 * MIB
        before = left(worker)
        socks = [stack.enter_context(lazy(worker)) for _ in range(8)]
        for sock in socks:
            begun(sock)
            assert worker.ask(GET % b"/short").endswith(b"short")  # nobody waits for a slow client
            assert in_memory(worker) <= 10 * MIB
        assert left(worker)["files"] < before["files"]
        for sock in socks[:6]:
            assert read_all(sock).partition(b"\r\n\r\n")[2] == BLOCK
        for sock in socks[6:]:
            sock.close()
        wait_until(lambda: left(worker) == before)


def test_an_answer_that_finds_no_room_is_waited_for():
    """Neither in memory nor in a file: the application waits for the client, as with an answer in parts."""
    with serving(whole, answer_spool=0) as worker, lazy(worker) as first, lazy(worker) as sock:
        worker.loop._accepting._limits.budget._left["memory"] = 10 * MIB
        begun(first)
        begun(sock)
        assert worker.slot.busy_since_ns()
        assert in_memory(worker) <= 16 * MIB + 1000
        assert read_all(sock).partition(b"\r\n\r\n")[2] == BLOCK
        assert read_all(first).partition(b"\r\n\r\n")[2] == BLOCK
        wait_until(lambda: left(worker)["memory"] == 10 * MIB)


def test_parts_stay_in_order_when_memory_is_taken():
    """What follows a part that is in a file goes behind it."""
    stream = Stream(20)
    with serving(stream) as worker, lazy(worker) as sock:
        worker.loop._accepting._limits.budget._left["memory"] = MIB // 4
        sock.sendall(GET % b"/")
        assert read_all(sock).partition(b"\r\n\r\n")[2] == stream.whole()
        assert left(worker)["memory"] == MIB // 4


def test_the_last_part_waits_for_the_end_and_no_other_does():
    """By MSG_MORE, so that the FIN goes with the data."""
    sent = []

    def send(data, flags):
        sent.append((bytes(data), bool(flags & socket.MSG_MORE)))
        return 1

    sock = SimpleNamespace(fileno=lambda: 0, send=send)
    outbox = Outbox(sock, OutputLimits(write_timeout=5, budget=Budget()))
    outbox.send_nowait(b"a")
    outbox.send_last(b"bc")
    outbox.flush()
    assert sent == [(b"a", False), (b"bc", True), (b"c", False)]


def test_an_answer_is_held_back_until_the_end_of_the_turn():
    """It is pending until then, and what follows it is sent behind it; it is not held behind other output."""
    sent = []

    def send(data, _flags):
        sent.append(bytes(data))
        return len(data)

    outbox = Outbox(
        SimpleNamespace(fileno=lambda: 0, send=send), OutputLimits(write_timeout=5, budget=Budget())
    )
    outbox.send_answer(b"a")
    outbox.holds = True
    outbox.send_answer(b"bc")
    assert (sent, outbox.pending, outbox.unsent) == ([b"a"], True, 2)
    assert outbox.flush()
    outbox.holds = False
    outbox.send_answer(b"d")
    assert (sent, outbox.pending, outbox.unsent, outbox.sent) == ([b"a", b"bc", b"d"], False, 0, 4)
    outbox.holds = True
    outbox.send_answer(b"e")
    outbox.drop()
    assert not outbox.pending
