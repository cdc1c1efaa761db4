"""Errors by blame."""

from preforkd.errors import (
    ApplicationError,
    ConfigurationError,
    ExitStatus,
    Place,
    Problem,
    SystemFailure,
    did_you_mean,
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
