"""The stages: no test is in none of them, and what they print is true."""

import os
import re
import subprocess
import sys

import pytest

from tests import stages

BY_NAME = {stage.name: stage for stage in stages.STAGES}
FAILING = """
def test_a():
    assert 1 == 2

def test_b():
    pass
"""


def paths(stage):
    """Return the files that a stage would collect, its marks aside."""
    named = [argument for argument in stage.arguments if argument.startswith("tests")]
    ignored = [text.partition("=")[2] for text in stage.arguments if text.startswith("--ignore")]
    found = set()
    for name in named:
        path = stages.TREE / name
        found |= {path} if path.is_file() else set(path.rglob("test_*.py"))
    return {
        path
        for path in found
        if not any((stages.TREE / name) in (path, *path.parents) for name in ignored)
    }


def test_each_test_file_has_a_stage():
    """What unit leaves out lies in another stage; what a mark excepts, in the stage of that mark."""
    of = {name: paths(stage) for name, stage in BY_NAME.items()}
    files = set((stages.TREE / "tests").rglob("test_*.py"))
    assert set().union(*of.values()) == files
    alone = ("lint", "unit", "newer", "systemd")
    assert sum(len(of[name]) for name in alone) == len(set().union(*(of[name] for name in alone)))
    for path in of["unit"]:
        for mark in set(
            re.findall(r"^(?:pytestmark = |@)pytest\.mark\.(\w+)", path.read_text(), re.MULTILINE)
        ):
            assert mark not in BY_NAME or path in of[mark], (path, mark)


@pytest.mark.parametrize("parallel", [(), ("-pxdist", "--numprocesses=1")])
def test_what_pytest_reports_is_found_in_its_output(tmp_path, parallel):
    """Counts and failures, with and without pytest-xdist."""
    (tmp_path / "test_it.py").write_text(FAILING)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *parallel,
        "test_it.py",
    ]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert stages.summary(done.stdout) == (
        "1 failed, 1 passed",
        ("FAILED test_it.py::test_a - assert 1 == 2",),
    )


def test_a_pytest_that_does_not_run_is_a_failure(capfd, monkeypatch):
    """The stage has failed, the others run, and the report ends with what pytest printed."""
    broken = stages.Stage("broken", ("--no-such-option",), 1)
    monkeypatch.setattr(stages, "STAGES", (broken, stages.Stage("whole", ("--version",), 1)))
    monkeypatch.setattr(sys, "argv", ["stages", "broken", "whole"])
    assert stages.main() == 1
    report = capfd.readouterr().out.partition("===== broken failed\n")[2]
    assert "unrecognized arguments: --no-such-option" in report
    assert re.search(r"^broken +FAILED +\d+ s +pytest gave no summary$", report, re.MULTILINE)
    assert re.search(r"^whole +passed +\d+ s ", report, re.MULTILINE)


def test_a_stage_that_takes_too_long_is_interrupted(tmp_path):
    """It has failed, and the report names the reason."""
    path = tmp_path / "test_it.py"
    path.write_text("import threading\ndef test_a():\n    threading.Event().wait()\n")
    late = stages.Stage("late", ("-p", "no:cacheprovider", str(path)), 0.05)
    result = stages.run(late)
    assert result.failed
    assert result.failures[-1] == "FAILED late: not done within 0.05 min"
