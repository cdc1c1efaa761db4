"""Reading the configuration in a child process has the result of reading it directly."""

import os
import sys

import pytest

from preforkd.config import reader_process, sources
from preforkd.config.credentials import Credentials
from preforkd.errors import ConfigurationError, InternalError, SystemFailure

GOOD = """\
app:
  target: wsgi:shop:application
  environment: {A: b, KEY: {credential: key}}
  warm_up: [/, "shop:fill"]
listen:
  - 127.0.0.1:8000
  - {address: "unix:/run/shop", mode: 0660}
workers: {min: 2, max: 9}
timeouts: {drain: 1min 30s}
memory: {refork: {after: 2000 requests}, limit: 1G}
"""


def test_the_result_equals_that_of_reading_directly(tmp_path):
    """Settings of every form, places, the path, secrets; options override; a relative path is found."""
    path = tmp_path / "preforkd.yaml"
    path.write_text(GOOD)
    (tmp_path / "key").write_text("hidden\n")
    options: dict[str, str | list[str]] = {"log.level": "error", "listen": [":1", ":2"]}
    here = sources.load(str(path), options, Credentials(str(tmp_path)))
    there = reader_process.load(str(path), options, str(tmp_path))
    assert there == here
    assert there.settings.app.environment["KEY"] == "hidden"
    assert there.secrets == {"app.environment.KEY"}
    assert there.origins["timeouts.drain"].line == 9
    assert (
        reader_process.load(os.path.relpath(path), options, str(tmp_path)).settings == here.settings
    )


def test_every_problem_has_its_place(tmp_path):
    """The same error: each problem, its line and its hint."""
    path = tmp_path / "preforkd.yaml"
    path.write_text("worker: 3\napp: {target: nothing}\n")
    with pytest.raises(ConfigurationError) as here:
        sources.load(str(path), {})
    with pytest.raises(ConfigurationError) as there:
        reader_process.load(str(path), {}, None)
    assert there.value.problems == here.value.problems
    assert there.value.report() == here.value.report()
    assert len(there.value.problems) == 2


def test_a_child_that_does_not_end_is_killed(tmp_path, monkeypatch):
    """A SystemFailure, and no process is left."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    monkeypatch.setattr(reader_process, "_CHILD", f"open({str(path)!r})")
    monkeypatch.setattr(reader_process, "TIMEOUT", 0.5)
    with pytest.raises(SystemFailure, match=r"was not read within 0\.5 s"):
        reader_process.load(str(path), {}, None)
    # The reader would make this possible without waiting, were it still there.
    with pytest.raises(OSError, match="No such device or address"):
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_child_that_was_reaped_elsewhere_has_a_result(tmp_path, monkeypatch, when):
    """The master reaps unknown children, before the pidfd is opened or after."""
    open_pidfd = os.pidfd_open

    def open_it(pid):
        if when == "before":
            os.waitpid(pid, 0)
        pidfd = open_pidfd(pid)
        os.waitpid(pid, 0)
        return pidfd

    monkeypatch.setattr(os, "pidfd_open", open_it)
    path = tmp_path / "preforkd.yaml"
    path.write_text("workers: 3\n")
    assert reader_process.load(str(path), {}, None).settings.workers.count == 3


def test_a_failed_start_and_a_failed_child_are_distinguished(monkeypatch):
    """The first is a SystemFailure, the second an InternalError."""
    monkeypatch.setattr(reader_process, "_CHILD", "raise SystemExit(3)")
    with pytest.raises(InternalError, match="exited without a result"):
        reader_process.load(None, {}, None)
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    with pytest.raises(SystemFailure, match="cannot start a process"):
        reader_process.load(None, {}, None)


def test_names_that_are_not_utf8_are_refused():
    """All at once, with their settings, instead of a traceback."""
    wrong = os.fsdecode(b"/caf\xe9")
    with pytest.raises(ConfigurationError) as caught:
        reader_process.load(wrong, {"app.directory": wrong, "listen": ["unix:" + wrong]}, None)
    assert [problem.setting for problem in caught.value.problems] == [
        "app.directory",
        "listen",
        "--config",
    ]
    assert "is not UTF-8" in caught.value.message


def test_a_thread_of_the_child_does_not_delay_the_result(tmp_path, monkeypatch):
    """A monitoring tool starts one in a sitecustomize module."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(reader_process, "TIMEOUT", 10.0)
    path = tmp_path / "preforkd.yaml"
    path.write_text("workers: 3\n")
    assert reader_process.load(str(path), {}, None).settings.workers.count == 3
