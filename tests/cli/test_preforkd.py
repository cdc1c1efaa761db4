"""preforkd's command line; what it starts is proven with real processes."""

import subprocess
import sys
from datetime import datetime

import pytest

from preforkd.cli import preforkd

NOT_FOR_THE_MASTER = {
    "argparse", "ast", "asyncio", "base64", "dataclasses", "difflib", "inspect", "ipaddress", "pathlib",
    "preforkd.supervisor.file_watch", "shutil", "ssl", "stringprep", "subprocess", "typing_extensions",
    "urllib.parse", "yaml",
}  # fmt: skip
"""Modules that the master does not use, and that would stay in its memory."""


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


def test_config_shows_the_options(capsys):
    """The same options as `run`, by the same rules."""
    assert preforkd.main(["config", "wsgi:a:b", "--listen", ":80", "--listen", ":81"]) == 0
    shown = capsys.readouterr().out
    assert ":80, :81" in shown
    assert "wsgi:a:b" in shown
    assert preforkd.main(["config", "--watch"]) == 0
    assert ["app.watch", "true", "--watch"] in map(str.split, capsys.readouterr().out.splitlines())
    assert preforkd.main(["config", "--workers", "x"]) == 78
    assert "--workers: workers.count: 'x' is given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        ("killed KILL success", "the master was killed by SIGKILL"),
        ("dumped ABRT watchdog", "by SIGABRT: it sent no watchdog ping within WatchdogSec="),
        ("killed KILL timeout", "by SIGKILL: a step exceeded its timeout in the unit"),
        ("killed SEGV signal", "the master was killed by SIGSEGV"),
        ("killed TERM success", None),
        ("exited 78 exit-code", None),
        ("", None),
    ],
)
def test_wait_workers_logs_how_the_master_was_killed(caplog, monkeypatch, passed, words):
    """As an error with a catalog entry, from systemd's environment; then it waits for workers, at most 5 s."""
    waited = []

    def wait_until_alone(patience):
        waited.append(patience)
        return [7, 8]

    monkeypatch.setattr(preforkd.cgroup, "wait_until_alone", wait_until_alone)
    monkeypatch.setattr(preforkd.logs, "configure", lambda *_: None)
    names = ("EXIT_CODE", "EXIT_STATUS", "SERVICE_RESULT")
    for name, value in zip(names, passed.split(), strict=False):
        monkeypatch.setenv(name, value)
    assert preforkd.main(["wait-workers"]) == 0
    assert waited == [5.0]
    *errors, last = caplog.records
    assert (
        last.getMessage()
        == "2 processes still run 5 s after the end of the master; systemd kills them"
    )
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


def test_the_former_name_of_wait_workers_still_works(monkeypatch, capsys):
    """Units of an older package call it; the help does not list it."""
    monkeypatch.setattr(preforkd.cgroup, "wait_until_alone", lambda _: [])
    monkeypatch.setattr(preforkd.logs, "configure", lambda *_: None)
    assert preforkd.main(["farewell"]) == 0
    with pytest.raises(SystemExit):
        preforkd.main(["--help"])
    assert "farewell" not in capsys.readouterr().out


def loaded_by(*modules):
    """Return the modules that a fresh interpreter without its site module has loaded after these imports."""
    program = (
        "import sys, importlib; sys.path[:] = sys.argv[2:]\n"
        "for name in sys.argv[1].split(): importlib.import_module(name)\n"
        "print(*(name for name, module in sys.modules.items() if module))"
    )
    command = [sys.executable, "-S", "-c", program, " ".join(modules), *sys.path]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_the_master_loads_little():
    """None of its imports loads a large module that it does not use, but logging (CPython 3.14: inspect)."""
    loaded = loaded_by("preforkd.cli.preforkd", "preforkd.supervisor.main")
    assert "preforkd.supervisor.master" in loaded
    assert not (loaded - loaded_by("logging")) & NOT_FOR_THE_MASTER


@pytest.mark.parametrize(("columns", "fits"), [("50", False), ("120", True)])
def test_the_help_is_as_wide_as_the_terminal(columns, fits, monkeypatch, capsys):
    """By COLUMNS, without the imports by which argparse would find it."""
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        preforkd.main(["--help"])
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if "for ExecStop=" in line)
    assert max(map(len, shown.partition("exit statuses:")[0].splitlines())) <= int(columns) - 2
    assert line.endswith("a killed master") == fits


def test_a_failed_start_is_logged_with_the_time(tmp_path):
    """A line for each problem of the file, in the format of the log on standard error."""
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
