"""preforkd's command line; what it starts is proven with real processes."""

import subprocess
import sys
from datetime import datetime

import pytest

from preforkd.cli import preforkd

NOT_FOR_THE_MASTER = {
    "argparse", "ast", "asyncio", "base64", "dataclasses", "difflib", "inspect", "ipaddress", "pathlib",
    "shutil", "ssl", "stringprep", "subprocess", "typing_extensions", "urllib.parse", "yaml",
}  # fmt: skip
"""Modules that cost it memory for ever, and of which it has no use."""


def test_check_exits_by_blame(tmp_path, capsys):
    """0 for a good file, 78 and every problem for a bad one."""
    path = tmp_path / "f"
    path.write_text("workers: 3\n")
    assert preforkd.main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path} is valid\n"
    path.write_text("workers: x\nlog: y\n")
    assert preforkd.main(["check", str(path)]) == 78
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1].rpartition(":")[0] for line in lines] == [f"{path}:1", f"{path}:2"]


def test_config_shows_what_the_options_say(capsys):
    """The same options as `run`, by the same rules."""
    assert preforkd.main(["config", "wsgi:a:b", "--listen", ":80", "--listen", ":81"]) == 0
    shown = capsys.readouterr().out
    assert ":80, :81" in shown
    assert "wsgi:a:b" in shown
    assert preforkd.main(["config", "--workers", "x"]) == 78
    assert "--workers: workers.count: 'x' is given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        ("killed KILL success", "the master was killed by SIGKILL"),
        ("dumped ABRT watchdog", "by SIGABRT: it did not feed the watchdog within WatchdogSec="),
        ("killed KILL timeout", "by SIGKILL: a step took longer than its timeout in the unit"),
        ("killed SEGV signal", "the master was killed by SIGSEGV"),
        ("killed TERM success", None),
        ("exited 78 exit-code", None),
        ("", None),
    ],
)
def test_farewell_says_how_the_master_was_killed(caplog, monkeypatch, passed, words):
    """As an error of the catalog, by what systemd passes; then it waits for the workers, 5 s at the most."""
    waited = []

    def wait_until_alone(patience):
        waited.append(patience)
        return [7, 8]

    monkeypatch.setattr(preforkd.cgroup, "wait_until_alone", wait_until_alone)
    monkeypatch.setattr(preforkd.logs, "configure", lambda *_: None)
    names = ("EXIT_CODE", "EXIT_STATUS", "SERVICE_RESULT")
    for name, value in zip(names, passed.split(), strict=False):
        monkeypatch.setenv(name, value)
    assert preforkd.main(["farewell"]) == 0
    assert waited == [5.0]
    *errors, last = caplog.records
    assert last.getMessage() == "2 processes of the master are not waited for longer"
    if words is None:
        assert errors == []
    else:
        (error,) = errors
        assert error.levelname == "ERROR"
        assert words in error.getMessage()
        assert error.journal["MESSAGE_ID"] == preforkd.catalog.MASTER_KILLED.id


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run", "--dance"], ["config", "a", "b"]])
def test_wrong_usage(arguments):
    """Exit status 2, from argparse."""
    with pytest.raises(SystemExit) as caught:
        preforkd.main(arguments)
    assert caught.value.code == 2


def loaded_by(*modules):
    """Return what a fresh interpreter has loaded when it has imported these; nothing by its site module."""
    program = (
        "import sys, importlib; sys.path[:] = sys.argv[2:]\n"
        "for name in sys.argv[1].split(): importlib.import_module(name)\n"
        "print(*(name for name, module in sys.modules.items() if module))"
    )
    command = [sys.executable, "-S", "-c", program, " ".join(modules), *sys.path]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_the_master_loads_little():
    """Nothing that it imports brings a module that is large and of no use to it."""
    loaded = loaded_by("preforkd.cli.preforkd", "preforkd.supervisor.main")
    assert "preforkd.supervisor.master" in loaded
    assert not loaded & NOT_FOR_THE_MASTER


@pytest.mark.parametrize(("columns", "fits"), [("50", False), ("120", True)])
def test_the_help_is_as_wide_as_the_terminal(columns, fits, monkeypatch, capsys):
    """By COLUMNS, as always; found without what argparse would import to find it."""
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        preforkd.main(["--help"])
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if line.strip().startswith("farewell"))
    assert len(line) <= int(columns) - 2
    assert line.endswith("that was killed") == fits


def test_a_start_that_fails_is_told_with_the_time(tmp_path):
    """As every line of a service's log on standard error is, for each problem of its file."""
    path = tmp_path / "p.yaml"
    path.write_text("lisen: 1\nworker: 2\n")
    command = [sys.executable, "-m", "preforkd", "run", "--config", str(path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 78
    for line, number in zip(done.stderr.splitlines(), (1, 2), strict=True):
        when, name, level, rest = line.split(" ", 3)
        assert datetime.fromisoformat(when).tzinfo is not None
        assert (name[:9], level) == ("preforkd[", "critical:")
        assert rest.startswith(f"{path}:{number}:1: ")
