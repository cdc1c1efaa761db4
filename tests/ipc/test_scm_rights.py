"""Unwanted descriptors."""

import socket
import threading

from preforkd.ipc import scm_rights


def test_a_blocking_close_does_not_block_the_caller():
    """It runs in a thread, and ``done`` is called after it."""
    go_on, done = threading.Event(), threading.Event()
    scm_rights.close_in_thread(lambda: go_on.wait(10), done.set)
    assert not done.is_set()
    go_on.set()
    assert done.wait(10)


def test_a_close_that_fails_is_done():
    """``done`` is called; the error is dropped."""
    done = threading.Event()

    def fail():
        raise OSError

    scm_rights.close_in_thread(fail, done.set)
    assert done.wait(10)


def test_without_a_thread_the_caller_closes(monkeypatch):
    """It blocks, but the socket is closed."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    closed = []
    scm_rights.close_in_thread(lambda: closed.append(1))
    assert closed == [1]


def test_what_is_refused_can_be_allowed_again():
    """As for a socket that systemd gets back; the kernel supports it since Linux 6.16."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        refused = scm_rights.refuse(ours)
        assert refused == (not _passes(theirs))
        scm_rights.allow(ours)
        assert _passes(theirs)


def _passes(sock):
    try:
        socket.send_fds(sock, [b"x"], [0])
    except PermissionError:
        return False
    return True
