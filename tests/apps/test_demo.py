"""The embedded demo."""

import socket
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from preforkd.apps import demo


def test_the_greeting_is_one_line_that_names_the_worker(monkeypatch):
    """Slot, pid, and how many this worker has greeted."""
    monkeypatch.setenv("PREFORKD_WORKER", "3")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        demo.greet(ours, None)
        line = theirs.recv(999).decode()
    assert line.startswith("Hello from preforkd worker 3 (pid ")
    assert line.endswith("\r\n")


def test_the_wsgi_demo_keeps_to_the_protocol():
    """wsgiref's validator has nothing to say."""
    environ = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    answer = validator(demo.application)(environ, lambda status, headers: None)
    assert b"Hello" in b"".join(answer)
    answer.close()
