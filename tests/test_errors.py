"""Errors by blame."""

import errno

from preforkd.errors import (
    ApplicationError,
    ConfigurationError,
    ExitStatus,
    Place,
    Problem,
    SystemFailure,
    did_you_mean,
    refused,
    shortage,
)


def test_a_report_is_message_evidence_and_hint():
    """In this order, without what is not there."""
    assert SystemFailure("m", detail="d\n", hint="h").report() == "m\nd\nhint: h"
    assert SystemFailure("m").report() == "m"


def test_a_configuration_error_counts_its_problems():
    """The first is the message, the rest the evidence."""
    problems = [Problem(Place("f", n, 1), "a.b", "wrong", "try c") for n in (1, 2, 3)]
    error = ConfigurationError(problems)
    assert error.message == "f:1:1: a.b: wrong (try c) (and 2 more problems)"
    assert error.detail.split("\n") == [str(problem) for problem in problems[1:]]
    assert str(Problem(Place("--workers"), "", "wrong")) == "--workers: wrong"


def test_each_blame_has_its_own_status():
    """As documented, from sysexits.h."""
    assert ApplicationError("x").exit_status == ExitStatus.APPLICATION == 69
    assert SystemFailure("x").exit_status == ExitStatus.SYSTEM == 71
    assert ConfigurationError([]).exit_status == ExitStatus.CONFIGURATION == 78


def test_the_nearest_word_is_asked_for():
    """Only one that is near."""
    assert did_you_mean("lisen", {"listen": 1, "workers": 2}) == "did you mean listen?"
    assert did_you_mean("x", ["listen", "workers"]) == ""


def test_what_is_used_up_is_known_through_other_errors():
    """By the error itself, or what it was raised from or in; any other error has no such hint."""
    full = OSError(errno.EMFILE, "Too many open files")
    assert "LimitNOFILE=" in shortage(full)
    outer = ImportError("no")
    outer.__context__ = RuntimeError("no")
    outer.__context__.__cause__ = full
    assert shortage(outer) == shortage(full)
    assert shortage(OSError(errno.ENOENT, "gone")) == shortage(KeyError()) == ""
    error = refused("a thing", full)
    assert (error.message, error.hint) == ("a thing: Too many open files", shortage(full))
