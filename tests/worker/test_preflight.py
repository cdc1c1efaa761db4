"""What every worker needs is tried once, before the first fork."""

import os
import tempfile

import pytest

from preforkd.config.settings import (
    AccessLogSettings,
    HttpSettings,
    ListenSettings,
    Settings,
    TlsSettings,
)
from preforkd.errors import ConfigurationError, SystemFailure
from preforkd.logs import access_log
from preforkd.worker import preflight, tls
from tests.worker.certificate import CERTIFICATE, KEY

HTTP = ("wsgi", "asgi")


def refusal(kind, target):
    """Return why an access log is refused; the setting is named for its place."""
    with pytest.raises(SystemFailure) as caught:
        preflight.check(kind, Settings(access_log=AccessLogSettings(target=str(target))))
    assert caught.value.setting == "access_log.target"
    return caught.value.message


@pytest.mark.parametrize("kind", HTTP)
def test_an_access_log_that_cannot_be_opened(tmp_path, kind):
    """Its directory is missing, it is one itself, a FIFO that nobody reads: none makes it wait."""
    assert refusal(kind, tmp_path / "no/log").endswith("/no/log: No such file or directory")
    assert refusal(kind, tmp_path).endswith("Is a directory")
    os.mkfifo(tmp_path / "fifo")
    assert refusal(kind, tmp_path / "fifo").endswith("/fifo: No such device or address")


def test_an_access_log_in_a_directory_that_may_not_be_written_to(tmp_path, monkeypatch):
    """Found without creating anything, by the rights of this process."""
    allowed = []
    monkeypatch.setattr(
        access_log.os, "access", lambda path, mode: allowed.append((path, mode)) or False
    )
    assert refusal("wsgi", tmp_path / "log").endswith("/log: Permission denied")
    assert allowed[-1] == (str(tmp_path), os.W_OK | os.X_OK)


@pytest.mark.parametrize("kind", HTTP)
def test_an_access_log_that_can_be_opened_is_not_created(tmp_path, kind):
    """Who checks a configuration, root perhaps, must not leave a file that the service cannot open."""
    for target in (str(tmp_path / "log"), "off", "journal", "stderr"):
        preflight.check(kind, Settings(access_log=AccessLogSettings(target=target)))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "log").write_text("a line")
    preflight.check(kind, Settings(access_log=AccessLogSettings(target=str(tmp_path / "log"))))
    assert (tmp_path / "log").read_text() == "a line"


def test_a_journal_that_is_not_there_is_told(monkeypatch, caplog, tmp_path):
    """It may come, so that nothing is refused."""
    monkeypatch.setattr(access_log.journal, "ADDRESS", str(tmp_path / "socket"))
    preflight.check("wsgi", Settings(access_log=AccessLogSettings(target="journal")))
    assert "socket does not exist: lines are lost until it does" in caplog.text


class Refusing:
    """Stands for a module tempfile that finds no directory."""

    tempdir = None

    def TemporaryFile(self):
        raise FileNotFoundError(2, "No usable temporary directory found")


def test_no_directory_for_temporary_files(monkeypatch, tmp_path, caplog):
    """Refused where there is none; only told while one exists whose disk is full."""
    monkeypatch.setattr(preflight, "tempfile", Refusing())
    monkeypatch.setattr(preflight, "_SHARED", (str(tmp_path / "nowhere"),))
    monkeypatch.delenv("TMPDIR", raising=False)
    with pytest.raises(
        SystemFailure, match="no temporary directory for large requests and answers"
    ) as caught:
        preflight.check("wsgi", Settings())
    assert "TMPDIR" in caught.value.hint
    preflight.check("asgi", Settings())
    preflight.check("stream", Settings())
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    preflight.check("wsgi", Settings())
    assert "they are refused until there is space" in caplog.text


def test_a_directory_for_temporary_files_that_is_not_used_is_told(monkeypatch, tmp_path, caplog):
    """TMPDIR names one that is not there: Python takes another; the application's choice stays open."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    preflight.check("wsgi", Settings())
    assert (
        f"TMPDIR={tmp_path}/nowhere is not writable; temporary files are created in " in caplog.text
    )
    assert tempfile.tempdir is None
    caplog.clear()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    preflight.check("wsgi", Settings())
    assert caplog.text == ""


@pytest.mark.parametrize("kind", HTTP)
def test_a_server_header_that_cannot_be_sent(kind):
    """The reader refuses it; should it come another way, no worker is started with it."""
    with pytest.raises(ConfigurationError, match=r"http\.server\b"):
        preflight.check(kind, Settings(http=HttpSettings(server="\u2713")))
    preflight.check("stream", Settings(http=HttpSettings(server="\u2713")))


def test_the_directories_are_those_where_python_looks():
    """Below what the environment names."""
    assert set(preflight._SHARED) < set(tempfile._candidate_tempdir_list())
    assert len(preflight._SHARED) == 3


@pytest.mark.parametrize("kind", ["wsgi", "asgi", "stream"])
def test_certificates_are_tried_where_a_listener_needs_them(kind, monkeypatch):
    """With HTTP for ALPN where it is spoken; without such a listener they are not read."""
    made = []
    monkeypatch.setattr(tls, "server_context", lambda *given: made.append(given))
    section = TlsSettings(certificate=CERTIFICATE, key=KEY)
    preflight.check(kind, Settings(tls=section))
    assert made == []
    plain, secure = ListenSettings(address="8000"), ListenSettings(address="8443", tls=True)
    preflight.check(kind, Settings(listen=(plain, secure), tls=section))
    assert made == [(section, ()) if kind == "stream" else (section,)]
