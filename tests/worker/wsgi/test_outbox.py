"""What a client does not take at once: kept, bounded, and given up in the end."""

import contextlib
import os
import socket
import struct
import tempfile
import time
from types import SimpleNamespace

import pytest

from preforkd.http.bounds import Budget
from preforkd.worker.wsgi import outbox as module
from preforkd.worker.wsgi.outbox import HIGH_WATER, Outbox, OutputLimits
from preforkd.worker.wsgi.response import ClientGoneError
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


class Sock(socket.socket):
    """A socket that takes ``room`` bytes; ``error`` is raised by each call. What was taken is kept."""

    room, error, taken, options = 0, None, b"", ()

    def send(self, data, flags=0):
        assert flags & socket.MSG_DONTWAIT
        if self.error is not None:
            raise self.error
        if not self.room:
            raise BlockingIOError
        part = bytes(data[: self.room])
        self.room -= len(part)
        self.taken += part
        return len(part)

    def sendmsg(self, parts, ancillary=(), flags=0):
        return self.send(b"".join(parts), flags)

    def setsockopt(self, *option):
        self.options = (*self.options, option)


class Kept:
    """An outbox on a socket of the test, with its budget."""

    def __init__(self, sock, *, memory=100, files=1000, spool=0, **how):
        self.sock, self.budget = sock, Budget(memory=memory, files=files)
        limits = {"write_timeout": 5.0, "min_rate": 10, **how}
        self.outbox = Outbox(sock, OutputLimits(budget=self.budget, spool=spool, **limits))

    def drain(self):
        """Return all that the client gets."""
        self.sock.room = 1 << 30
        while self.outbox.pending:
            self.outbox.flush()
        return self.sock.taken

    @property
    def left(self):
        return self.budget._left


@pytest.fixture
def make():
    """Make outboxes; a file is sent by `Sock.send` as well."""
    ours, theirs = socket.socketpair()
    sock = Sock(fileno=ours.detach())
    with theirs, sock, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            os, "sendfile", lambda _, fd, at, count: sock.send(os.pread(fd, count, at), 64)
        )
        yield lambda **how: Kept(sock, **how)


def test_what_is_not_taken_is_kept_and_counted(make):
    """With the memory of its whole object, until it is sent."""
    kept = make()
    kept.sock.room = 3
    kept.outbox.send_nowait(b"abcdef")
    assert (kept.outbox.sent, kept.outbox.unsent, kept.outbox.pending) == (3, 3, True)
    kept.outbox.send_nowait(b"ghi")
    assert (kept.outbox.sent, kept.outbox.unsent, kept.left["memory"]) == (3, 6, 91)
    assert not kept.outbox.flush()
    kept.sock.room = 1
    assert kept.outbox.flush()
    assert (kept.outbox.sent, kept.outbox.unsent, kept.left["memory"]) == (4, 5, 91)
    kept.sock.room = 3
    assert kept.outbox.flush()
    assert (kept.outbox.unsent, kept.left["memory"]) == (2, 97)
    assert kept.drain() == b"abcdefghi"
    assert (kept.outbox.sent, kept.outbox.unsent, kept.left["memory"]) == (9, 0, 100)


@pytest.mark.parametrize("call", ["send_nowait", "send_whole", "flush"])
def test_a_client_that_has_gone_leaves_its_output_unsent(make, call):
    """So that it is logged how much was; an OSError of a signal handler is raised as it is."""
    for error, expected in (
        (ConnectionResetError(104, "reset"), ClientGoneError),
        (OSError("in a handler"), OSError),
    ):
        kept = make()
        if call == "flush":
            kept.outbox.send_nowait(b"headbody")
        kept.sock.error = error
        arguments = {"send_nowait": (b"headbody",), "send_whole": (b"head", b"body"), "flush": ()}
        with pytest.raises(expected):
            getattr(kept.outbox, call)(*arguments[call])
        assert kept.outbox.unsent == 8
        kept.sock.error = None
        kept.outbox.drop()
        assert (kept.outbox.pending, kept.outbox.unsent, kept.left["memory"]) == (False, 0, 100)


@pytest.mark.parametrize("room", [0, 2, 4, 6, 8])
@pytest.mark.parametrize("before", [b"", b"first "])
def test_a_head_and_its_body_are_sent_in_order(make, room, before):
    """However much is taken at once, and behind what is kept already."""
    kept = make()
    if before:
        kept.outbox.send_nowait(before)
    kept.sock.room = room
    kept.outbox.send_whole(b"head", b"body")
    assert kept.outbox.sent == (0 if before else room)
    assert kept.outbox.unsent == len(before) + 8 - kept.outbox.sent
    assert kept.drain() == before + b"headbody"
    assert kept.outbox.sent == len(before) + 8
    assert kept.left["memory"] == 100


def test_a_secured_connection_sends_by_its_tls_socket(make):
    """A head and its body are kept and sent at once: one record after the other."""
    kept, taken = make(), []
    tls = SimpleNamespace(send=lambda data, _flags: taken.append(bytes(data)) or len(data))
    kept.outbox.secure(tls)
    kept.outbox.send_nowait(b"a")
    kept.outbox.send_whole(b"head", b"body")
    assert taken == [b"a", b"head", b"body"]
    assert not kept.outbox.pending
    assert kept.sock.taken == b""


def test_beyond_the_memory_of_all_answers_output_is_kept_in_a_file(make):
    """Also what follows it, so that the order remains; the file's bytes are given back when it is sent."""
    kept = make(spool=1000)
    kept.outbox.send_nowait(b"a" * 60)
    kept.outbox.send_nowait(b"b" * 60)
    kept.outbox.send_nowait(b"c" * 10)
    assert kept.left == {"memory": 40, "files": 930}
    assert kept.outbox.unsent == 130
    kept.sock.room = 70
    kept.outbox.flush()
    assert (kept.outbox.unsent, kept.left) == (60, {"memory": 100, "files": 930})
    assert kept.drain() == b"a" * 60 + b"b" * 60 + b"c" * 10
    assert kept.left == {"memory": 100, "files": 1000}
    kept.outbox.send_nowait(b"d")  # in memory again
    assert kept.left["memory"] == 100


def test_beyond_both_output_is_kept_in_memory_nevertheless(make):
    """It is there already; behind the file it stays behind it."""
    kept = make(spool=1000, files=60)
    for part in (b"a" * 90, b"b" * 60, b"c" * 30):
        kept.outbox.send_nowait(part)
    assert kept.left == {"memory": 100 - 90 - 30, "files": 0}
    kept.outbox.send_nowait(b"d" * 5)
    assert kept.drain() == b"a" * 90 + b"b" * 60 + b"c" * 30 + b"d" * 5
    assert kept.left == {"memory": 100, "files": 60}
    kept.sock.room = 0
    kept.outbox.send_nowait(b"a" * 99)
    kept.outbox.send_nowait(b"b" * 60)
    kept.outbox.drop()
    assert kept.left == {"memory": 100, "files": 60}


def test_parts_above_the_high_water_mark_are_spooled(make):
    """Up to the bound of an answer's spool."""
    kept = make(memory=1 << 30, files=1 << 30, spool=100)
    kept.outbox.send(b"a" * HIGH_WATER)
    kept.outbox.send(b"b")
    assert kept.left["files"] == 1 << 30
    kept.outbox.send(b"c" * 60)
    kept.outbox.send(b"d" * 40)
    assert kept.left["files"] == (1 << 30) - 100
    assert kept.drain() == b"a" * HIGH_WATER + b"b" + b"c" * 60 + b"d" * 40


def test_parts_do_not_wait_for_the_clients_acknowledgement():
    """TCP_NODELAY is set with the first part of an answer; one in a single piece does not need it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=20)
        sock = listener.accept()[0]
    with client, sock:
        outbox = Outbox(sock, OutputLimits(write_timeout=5.0, budget=Budget()))
        outbox.send_nowait(b"whole")
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        outbox.send(b"part")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_part_that_there_is_room_for_by_now_is_not_spooled(make):
    """The client has read meanwhile."""
    kept = make(memory=1 << 30, spool=1000)
    kept.outbox.send(b"a" * (HIGH_WATER + 1))
    kept.sock.room = 1
    kept.outbox.send(b"b")
    assert kept.left["files"] == 1000
    assert kept.outbox.unsent == HIGH_WATER + 1


class Waiting:
    """Stands for select.poll: each wait lets the client take ``room`` bytes, or does not."""

    def __init__(self, kept, *rooms):
        self.kept, self.rooms, self.timeouts = kept, list(rooms), []

    def __call__(self):
        return self

    def register(self, descriptor, events):
        assert (descriptor, events) == (self.kept.sock.fileno(), 4)

    def poll(self, timeout):
        self.timeouts.append(timeout)
        self.kept.sock.room = room = self.rooms.pop(0)
        return [(0, 4)] if room else []


def test_without_room_the_application_waits_for_the_client(make, monkeypatch):
    """Until half of the mark is left; a full spool is waited for until it is empty."""
    kept = make(memory=1 << 30)
    kept.outbox.send(b"a" * (HIGH_WATER + 1))
    waiting = Waiting(kept, HIGH_WATER // 2, 1)
    monkeypatch.setattr(module.select, "poll", waiting)
    kept.outbox.send(b"b")
    assert (waiting.timeouts, waiting.rooms) == ([5000.0, 5000.0], [])
    assert kept.outbox.unsent == HIGH_WATER // 2 + 1
    assert kept.drain() == b"a" * (HIGH_WATER + 1) + b"b"
    kept = make(memory=1 << 30, spool=100)
    kept.sock.taken, kept.sock.room = b"", 0
    kept.outbox.send(b"a" * (HIGH_WATER + 1))
    kept.outbox.send(b"b" * 90)
    waiting = Waiting(kept, HIGH_WATER, 1, 89, 1)
    monkeypatch.setattr(module.select, "poll", waiting)
    kept.outbox.send(b"c" * 11)
    assert waiting.rooms == []
    assert kept.drain() == b"a" * (HIGH_WATER + 1) + b"b" * 90 + b"c" * 11
    assert kept.left["files"] == 1000


def test_a_client_that_does_not_read_is_given_up_by_the_application(make, monkeypatch):
    """Its connection is reset, and the part is unsent: it counts in the log."""
    kept = make(memory=1 << 30)
    kept.outbox.send(b"a" * (HIGH_WATER + 1))
    monkeypatch.setattr(module.select, "poll", Waiting(kept, 0))
    with pytest.raises(ClientGoneError, match="does not read"):
        kept.outbox.send(b"b" * 7)
    assert kept.outbox.unsent == HIGH_WATER + 8
    linger = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert linger in kept.sock.options


@pytest.mark.parametrize(
    ("rate", "taken", "progress"), [(10, 50, True), (10, 49, False), (0, 1, True), (0, 0, False)]
)
def test_when_a_client_has_progressed(make, rate, taken, progress):
    """It has taken min_rate bytes for each second of the timeout, or anything without a rate."""
    kept = make(memory=1000, min_rate=rate)
    kept.outbox.send_nowait(b"a" * 500)
    kept.outbox.mark()
    kept.sock.room = taken
    kept.outbox.flush()
    assert kept.outbox.has_progressed() is progress


def test_a_file_is_behind_what_is_kept(make):
    """It is sent as far as it is taken; what was sent of it counts."""
    kept = make()
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        kept.outbox.send_nowait(b"head")
        kept.sock.room = 7
        kept.outbox.send_file(file, 2, 6)
        assert (kept.outbox.sent, kept.outbox.unsent) == (7, 3)
        assert kept.drain() == b"head234567"
        assert kept.outbox.sent == 10
