"""Errors by blame."""

import errno

import msgspec

from preforkd.errors import (
    DETAIL_LIMIT,
    UNKNOWN_PLACE,
    ApplicationError,
    Blame,
    ConfigurationError,
    ExitStatus,
    Failure,
    InternalError,
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
    assert Failure(Blame.SYSTEM, "m", "d\n", "h").report("start") == "start: m\nd\nhint: h"


def test_a_configuration_error_counts_its_problems():
    """The first is the message, the rest the evidence."""
    problems = [Problem(Place("f", n, 1), "a.b", "wrong", "try c") for n in (1, 2, 3)]
    error = ConfigurationError(problems)
    assert error.message == "f:1:1: a.b: wrong (try c) (and 2 more problems)"
    assert error.detail.split("\n") == [str(problem) for problem in problems[1:]]
    assert str(Problem(Place("--workers"), "", "wrong")) == "--workers: wrong"


def test_an_error_is_a_failure_with_its_blame_and_its_setting():
    """Message, evidence and hint are kept."""
    error = ApplicationError("m", detail="d", hint="h")
    assert error.failure() == Failure(Blame.APPLICATION, "m", "d", "h")
    assert SystemFailure("m").failure().blame is Blame.SYSTEM
    assert InternalError("m").failure().blame is Blame.INTERNAL
    located = ConfigurationError([Problem(Place("f", 3, 5), "tls.key", "gone", "a file")])
    expected = Failure(Blame.CONFIGURATION, "f:3:5: tls.key: gone (a file)", setting="tls.key")
    assert located.failure() == expected


def test_a_problem_without_a_place_leaves_room_for_it():
    """The hint stays apart from the reason, in front of which the master puts the place."""
    problem = Problem(UNKNOWN_PLACE, "tls.key", "gone", "a file")
    failure = ConfigurationError([problem]).failure()
    assert failure == Failure(Blame.CONFIGURATION, "tls.key: gone", "", "a file", "tls.key")
    assert ConfigurationError([problem], hint="more").failure().hint == "more"


def test_evidence_is_cut_at_its_beginning():
    """The end of a traceback, where the error is, arrives."""
    assert Failure(Blame.SYSTEM, "r", "short").detail == "short"
    long = "begin" + "x" * 100_000 + "end"
    detail = Failure(Blame.SYSTEM, "r", long).detail
    assert detail == "…\n" + long[-DETAIL_LIMIT:]
    assert Failure(Blame.SYSTEM, "r", detail).detail == detail


def test_a_failure_may_be_of_any_text():
    """The text of an exception may be no UTF-8; it is escaped, and can be sent."""
    failure = Failure(Blame.APPLICATION, "caf\udce9", "\ud800", "\u20ac")
    assert (failure.reason, failure.detail, failure.hint) == ("caf\\udce9", "\\ud800", "\u20ac")
    assert msgspec.msgpack.encode(failure)


def test_each_blame_has_its_own_status():
    """As documented, from sysexits.h."""
    assert len({blame.exit_status for blame in Blame}) == len(Blame)
    assert ApplicationError("x").exit_status == ExitStatus.APPLICATION == 69
    assert SystemFailure("x").exit_status == ExitStatus.SYSTEM == 71
    assert ConfigurationError([]).exit_status == ExitStatus.CONFIGURATION == 78
    assert InternalError("x").exit_status == ExitStatus.INTERNAL == 70


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
