"""What the application does not inherit."""

import os

import pytest

from preforkd.linux.environment import clean, working_directory


def test_nothing_is_left_that_makes_a_child_the_service():
    """sd_listen_fds, sd_notify and sd_watchdog_enabled find nothing; all else stays."""
    environ = {
        "LISTEN_FDS": "1",
        "LISTEN_PID": "2",
        "LISTEN_FDNAMES": "x",
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "PATH": "/bin",
        "INVOCATION_ID": "a",
    }
    assert clean(environ) == {"PATH": "/bin", "INVOCATION_ID": "a"}
    assert "LISTEN_FDS" in environ


@pytest.fixture
def releases(tmp_path, monkeypatch):
    """Two releases and a link to the first, which is the current directory."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "1")
    monkeypatch.chdir(tmp_path / "1")
    return tmp_path


def test_the_shells_word_keeps_symbolic_links(releases):
    """Where it is the same directory; a shell that was elsewhere, or nonsense, counts for nothing."""
    link, here = str(releases / "current"), str(releases / "1")
    assert working_directory({"PWD": link}) == link
    for told in (str(releases / "2"), str(releases / "nowhere"), "1", ""):
        assert working_directory({"PWD": told}) == here
    assert working_directory({}) == here


def test_a_directory_that_cannot_be_entered_again(releases, monkeypatch):
    """It was deleted, or this user may not: there is no path to it."""
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert working_directory({}) == ""
    monkeypatch.undo()
    monkeypatch.chdir(releases / "2")
    (releases / "2").rmdir()
    assert working_directory({"PWD": str(releases / "2")}) == ""
    assert working_directory({"PWD": str(releases / "current")}) == ""
