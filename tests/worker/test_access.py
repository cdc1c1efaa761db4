"""The access log."""

import contextlib
import json
import re
import socket

import pytest
from serving import serving

from preforkd.config.settings import AccessLog
from preforkd.errors import SystemFailure
from preforkd.http.head import Head
from preforkd.worker import access
from preforkd.worker.access import Answered, combined_line, open_access_log

GET = b'GET %b HTTP/1.1\r\nHost: h\r\nUser-Agent: te"st\r\nConnection: close\r\n\r\n'


def head(target):
    """Return the head of a request for this target."""
    return Head("GET", target, "1.1", (), True, 0, False)


def echo(environ, start_response):
    """Answer, or fail."""
    if environ["PATH_INFO"] == "/fails":
        raise KeyError
    start_response("201 Created", [])
    return [b"abc"]


def test_each_request_is_one_line(tmp_path):
    """Who, when, what, how it ended, bytes, agent, seconds; a failure of the application is 500."""
    target = tmp_path / "log"
    with serving(echo, access=AccessLog(target=str(target))) as worker:
        worker.ask(GET % b"/a?b")
        worker.ask(GET % b"/fails")
    first, second = target.read_text().splitlines()
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:[\d:]{8} [+-]\d{4}\] "GET /a\?b HTTP/1\.1" 201 3 "-" '
        r'"te\\x22st" \d+\.\d{6}',
        first,
    )
    assert '"GET /fails HTTP/1.1" 500 0' in second


def test_json_lines(tmp_path):
    """One object for each request."""
    target = tmp_path / "log"
    with serving(echo, access=AccessLog(target=str(target), format="json")) as worker:
        worker.ask(GET % b"/x")
    entry = json.loads(target.read_text())
    assert (entry["method"], entry["target"], entry["status"]) == ("GET", "/x", 201)
    assert entry["bytes"] == 3
    assert 0 <= entry["seconds"] < 10


def test_the_journal_gets_fields_and_is_not_waited_for(tmp_path, monkeypatch):
    """A journal that does not read costs entries, which are counted, and no time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "socket"))
        journal = access.Journal(str(tmp_path / "socket"), wait=False)
        monkeypatch.setattr(access, "Journal", lambda wait: journal)
        log = open_access_log(AccessLog(target="journal"))
        one = Answered("::1", head(b"/a"), 200, 3, 0.25)
        for _ in range(3000):
            log(one)
        first = journald.recv(65536)
        assert b"MESSAGE=::1 GET /a HTTP/1.1 200\n" in first
        assert b"PREFORKD_STATUS=200\n" in first
        assert b"PREFORKD_DURATION_USEC=250000\n" in first
        journald.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while journald.recv(65536):
                pass
        log(one)
        assert re.search(rb"PREFORKD_MISSED=\d+\n", journald.recv(65536))
        journal.close()


def test_a_client_cannot_write_lines_of_its_own():
    """Control characters, quotes and backslashes are escaped."""
    line = combined_line(Answered("a", head(b'/"\n\\\x9b'), 200, 0, 0.0))
    assert line.count(b"\n") == 1
    assert rb"/\x22\x0a\x5c\x9b" in line


def test_off_is_nothing_and_a_bad_path_an_error(tmp_path):
    """The default costs nothing; what cannot be opened is said before the worker is ready."""
    assert open_access_log(AccessLog()) is None
    with pytest.raises(SystemFailure, match=r"access_log\.target: .*No such file"):
        open_access_log(AccessLog(target=str(tmp_path / "no/log")))
