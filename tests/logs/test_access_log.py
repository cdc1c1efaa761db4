"""The access log."""

import contextlib
import errno
import json
import os
import re
import select
import socket
import struct
import tempfile
import threading
import time

import msgspec
import pytest

from preforkd.config.settings import AccessLogSettings, HttpSettings, Settings, WorkersSettings
from preforkd.errors import SystemFailure
from preforkd.http.head import RequestHead
from preforkd.ipc.handoff import HandoffQueue, pair
from preforkd.logs import access_log, sender as senders
from preforkd.logs.access_log import CompletedRequest, combined_line, json_line, open_access_log
from preforkd.logs.journal import Journal
from preforkd.logs.sender import JournalSender
from tests.worker.serving import read_all, read_answer, serving

GET = b'GET %b HTTP/1.1\r\nHost: h\r\nUser-Agent: te"st\r\nConnection: close\r\n\r\n'


def head(target):
    """Return the head of a request for this target."""
    return RequestHead("GET", target, "1.1", (), True, 0, False)


def echo(environ, start_response):
    """Answer, or fail."""
    if environ["PATH_INFO"] == "/fails":
        raise KeyError
    start_response("201 Created", [])
    return [b"abc"]


def test_each_request_is_one_line(tmp_path):
    """Who, when, what, how it ended, bytes, agent, seconds; a failure of the application is 500."""
    target = tmp_path / "log"
    with serving(echo, access=AccessLogSettings(target=str(target))) as worker:
        worker.ask(GET % b"/a?b")
        worker.ask(GET % b"/fails")
    first, second = target.read_text().splitlines()
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:[\d:]{8} [+-]\d{4}\] "GET /a\?b HTTP/1\.1" 201 3 "-" '
        r'"te\\x22st" \d+\.\d{6}',
        first,
    )
    body = b"500 Internal Server Error: the application failed\n"
    assert f'"GET /fails HTTP/1.1" 500 {len(body)} ' in second


def logged(path, count):
    """Return status, bytes, method and target of this many lines of a log in JSON."""
    deadline = time.monotonic() + 20
    while not path.exists() or path.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    entries = map(json.loads, path.read_text().splitlines())
    names = ("status", "bytes", "method", "target")
    return [tuple(entry[name] for name in names) for entry in entries]


POST = b"POST /p HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("data", "status", "method", "target"),
    [
        (b"GET /a HTTP/1.1\r\n\r\n", 400, "GET", "/a"),
        (b"GET /a HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 30 + b"\r\n", 431, "GET", "/a"),
        (b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n", 505, "GET", "/a"),
        (b"GET /" + b"a" * 600 + b" HTTP/1.1\r\n", 414, "GET", "/" + "a" * 600),
        (b"\x16\x03\x01\x02 \x01\r\nx\r\n\r\n", 400, "", r"\x16\x03\x01\x02 \x01"),
        (b"GET /a\n b HTTP/1.1\r\nHost: h\r\n\r\n", 400, "", "GET /a"),
        (POST + b"Content-Length: 9999\r\n\r\n", 413, "POST", "/p"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n7d1\r\n" + b"x" * 2001, 413, "POST", "/p"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400, "POST", "/p"),
        (POST + b"Content-Length: 9\r\n\r\nabc", 408, "POST", "/p"),
        (b"GET /late HTTP/1.1\r\nHo", 408, "GET", "/late"),
    ],
)
def test_a_refused_request_is_one_line(data, status, method, target, tmp_path):
    """With what was answered, and the request line if it is one; so is none that came before."""
    settings = Settings(
        http=HttpSettings(
            max_line=512, max_fields=20, max_body=2000, header_timeout=0.2, body_timeout=0.2
        ),
        access_log=AccessLogSettings(target=str(tmp_path / "log"), format="json"),
    )
    with serving(echo, whole=settings) as worker:
        with worker.connect() as sock:
            sock.sendall(b"GET /before HTTP/1.1\r\nHost: h\r\n\r\n")
            read_answer(sock)
            sock.sendall(data)
            answer = read_all(sock)
        before, refused = logged(tmp_path / "log", 2)
    assert before == (201, 3, "GET", "/before")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert refused == (status, len(answer.partition(b"\r\n\r\n")[2]), method, target)


def reset(sock):
    """Close a connection so that its peer cannot send any more."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_client_that_leaves_before_its_answer(threads, tmp_path):
    """499 and no bytes: while the request comes, and while the application is at it."""
    begun, go = threading.Event(), threading.Event()

    def slow(environ, start_response):
        begun.set()
        assert go.wait(20)
        return echo(environ, start_response)

    settings = Settings(
        workers=WorkersSettings(threads=threads),
        access_log=AccessLogSettings(target=str(tmp_path / "log"), format="json"),
    )
    with serving(slow, whole=settings) as worker:
        for data in (b"GET /half HTTP", POST + b"Content-Length: 9\r\n\r\nabc"):
            with worker.connect() as sock:
                sock.sendall(data)
        found = logged(tmp_path / "log", 2)
        assert found == [(499, 0, "", "GET /half HTTP"), (499, 0, "POST", "/p")]
        sock = worker.connect()
        sock.sendall(b"GET /asked HTTP/1.1\r\nHost: h\r\n\r\n")
        assert begun.wait(20)
        reset(sock)
        go.set()
        assert logged(tmp_path / "log", 3)[2] == (499, 0, "GET", "/asked")


PARTS = [b"x" * 100_000] * 300


def parts(environ, start_response):
    start_response("200 OK", [])
    return iter(PARTS)


def whole(environ, start_response):
    start_response("200 OK", [])
    return [b"".join(PARTS)]


def a_file(environ, start_response):
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the server
    file.write(b"".join(PARTS))
    file.seek(0)
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](file)


@pytest.mark.parametrize("application", [parts, whole, a_file])
def test_a_client_that_leaves_within_its_answer(application, tmp_path):
    """What was sent is logged, when that is known; to one that stays, all of it."""
    target = tmp_path / "log"
    with serving(
        application, access=AccessLogSettings(target=str(target), format="json")
    ) as worker:
        sock = worker.connect()
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        size = len(sock.recv(1000))
        reset(sock)
        ((status, count, *_),) = logged(target, 1)
        assert status == 200
        assert size - 500 < count < 30_000_000
        assert b"xxxx" in worker.ask(GET % b"/big")
        assert logged(target, 2)[1] == (200, 30_000_000, "GET", "/big")


def test_what_went_before_an_error_is_counted(tmp_path, monkeypatch):
    """A file is sent in steps: those that the system took count, though a later one fails."""
    real, steps = os.sendfile, []

    def sendfile(out, source, offset, count):
        if steps:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        steps.append(real(out, source, offset, min(count, 5000)))
        return steps[0]

    monkeypatch.setattr(os, "sendfile", sendfile)
    target = tmp_path / "log"
    with serving(a_file, access=AccessLogSettings(target=str(target), format="json")) as worker:
        worker.ask(GET % b"/big")
        assert logged(target, 1) == [(200, 5000, "GET", "/big")]


def test_a_request_that_takes_too_long_is_logged(tmp_path):
    """Before its worker is killed, with the status 504 that its client got."""
    begun, go = threading.Event(), threading.Event()

    def slow(environ, start_response):
        begun.set()
        assert go.wait(20)
        return echo(environ, start_response)

    target = tmp_path / "log"
    with serving(slow, access=AccessLogSettings(target=str(target), format="json")) as worker:
        with worker.connect() as sock:
            sock.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
            assert begun.wait(20)
            worker.acceptor.on_overdue()
            answer = read_all(sock)
            assert answer.startswith(b"HTTP/1.1 504 ")
            length = len(answer.partition(b"\r\n\r\n")[2])
            assert logged(target, 1) == [(504, length, "GET", "/slow")]
        go.set()


def test_dropped_headers_are_counted():
    """An administrator sees why the application did not get a header; other lines have no such field."""
    known = msgspec.structs.replace(head(b"/"), dropped=2)
    assert json.loads(json_line(CompletedRequest("c", known, 200, 0, 0.0)))["dropped_headers"] == 2
    assert "dropped_headers" not in json.loads(
        json_line(CompletedRequest("c", head(b"/"), 200, 0, 0.0))
    )


def test_json_lines(tmp_path):
    """One object for each request."""
    target = tmp_path / "log"
    with serving(echo, access=AccessLogSettings(target=str(target), format="json")) as worker:
        worker.ask(GET % b"/x")
    entry = json.loads(target.read_text())
    assert (entry["method"], entry["target"], entry["status"]) == ("GET", "/x", 201)
    assert entry["bytes"] == 3
    assert 0 <= entry["seconds"] < 10


def test_the_journal_gets_fields_and_losses_are_reported(tmp_path, monkeypatch):
    """A journal that does not read costs entries, which are counted, and a second once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "socket"))
        journal = Journal(str(tmp_path / "socket"))
        sender = JournalSender(lambda: {"PREFORKD_WORKER": 3}, journal)
        monkeypatch.setattr(senders, "own", lambda: sender)
        log = open_access_log(AccessLogSettings(target="journal"))
        one = CompletedRequest("::1", head(b"/a"), 200, 3, 0.25)
        for _ in range(3000):
            log.log(one)
            log.flush()
        first = journald.recv(65536)
        assert b"MESSAGE=::1 GET /a HTTP/1.1 200\n" in first
        assert b"PREFORKD_STATUS=200\n" in first
        assert b"PREFORKD_DURATION_USEC=250000\n" in first
        journald.setblocking(False)
        taken = 1
        with contextlib.suppress(BlockingIOError):
            while journald.recv(65536):
                taken += 1
        log.log(one)
        log.log(one)
        log.flush()
        lost = 3000 - taken
        told = b"MESSAGE=%d lines of worker 3 were lost: the journal did not take them\n" % lost
        assert told in journald.recv(65536)
        for _ in range(2):
            assert b"MESSAGE=::1 GET /a" in journald.recv(65536)
        journal.close()


def test_what_is_answered_in_one_turn_is_written_together(tmp_path, monkeypatch):
    """Requests that a client has sent ahead cost one write."""
    target = tmp_path / "log"
    written = []
    write = access_log._File.write
    monkeypatch.setattr(
        access_log._File,
        "write",
        lambda file, lines: written.append(len(lines)) or write(file, lines),
    )
    with serving(echo, access=AccessLogSettings(target=str(target))) as worker:
        ahead = b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(9))
        worker.ask(ahead + GET % b"/9")
    targets = [line.split()[6] for line in target.read_text().splitlines()]
    assert targets == [f"/{i}" for i in range(10)]
    assert written == [10]


def test_lines_do_not_wait_for_the_next_request(tmp_path):
    """While the application has the worker for long, what was answered before is written."""
    target = tmp_path / "log"
    asked, released = threading.Event(), threading.Event()

    def slow(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            asked.set()
            assert released.wait(60)
        return echo(environ, start_response)

    ends = pair()
    handoff = HandoffQueue(*ends)
    logged = AccessLogSettings(target=str(target))
    with serving(slow, access=logged, handoff=handoff) as worker, worker.connect() as sock:
        sock.sendall(b"GET /quick HTTP/1.1\r\nHost: h\r\n\r\n" + GET % b"/slow")
        assert asked.wait(20)
        deadline = time.monotonic() + 20
        while "/quick" not in target.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        released.set()
        while sock.recv(65536):
            pass
    for end in (handoff, *ends):
        end.close()
    assert [line.split()[6] for line in target.read_text().splitlines()] == ["/quick", "/slow"]


def test_pieces_for_a_pipe_are_whole_lines(tmp_path):
    """No write is longer than PIPE_BUF, in which the lines of other workers do not fall."""
    written = []
    lines = [b"x" * 1000 + b"\n"] * 9 + [b"y" * 6000 + b"\n", b"z\n"]
    file = access_log._File(-1)
    file._write = written.append
    file.write(lines)
    assert b"".join(written) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in written)
    assert all(len(piece) <= select.PIPE_BUF or piece[:1] == b"y" for piece in written)


def test_a_burst_is_not_kept_for_long():
    """A worker that is killed loses the lines of one batch at most."""
    written = []
    log = access_log.AccessLog(lambda answered: b"line\n", written.append)
    for _ in range(100):
        log.log(CompletedRequest("a", head(b"/"), 200, 0, 0.0))
    assert [len(lines) for lines in written] == [32, 32, 32]
    log.flush()
    assert len(written[3]) == 4
    log.flush()
    assert len(written) == 4


def test_a_client_cannot_write_lines_of_its_own():
    """Control characters, quotes and backslashes are escaped."""
    line = combined_line(CompletedRequest("a", head(b'/"\n\\\x9b'), 200, 0, 0.0))
    assert line.count(b"\n") == 1
    assert rb"/\x22\x0a\x5c\x9b" in line


def test_off_is_nothing_and_a_bad_path_an_error(tmp_path):
    """The default is off; a file that cannot be opened is an error before the worker is ready."""
    assert open_access_log(AccessLogSettings()) is None
    with pytest.raises(SystemFailure, match=r"access_log\.target: .*No such file"):
        open_access_log(AccessLogSettings(target=str(tmp_path / "no/log")))


def test_a_failed_write_is_logged_once(tmp_path, caplog):
    """A full disk loses lines but fails no request; their number is logged when a write succeeds again."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    file = access_log._File(descriptor)
    for _ in range(3):
        file.write([b"one\n", b"two\n"])
    assert caplog.messages == ["access log: write failed: No space left on device; lines are lost"]
    with (tmp_path / "log").open("wb") as room:
        os.dup2(room.fileno(), descriptor)
    file.write([b"three\n"])
    os.close(descriptor)
    assert (tmp_path / "log").read_bytes() == b"three\n"
    assert caplog.messages[1:] == ["access log: 6 lines were lost"]
