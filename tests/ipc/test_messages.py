"""The language of the three processes."""

import contextlib

import msgspec
from hypothesis import given, strategies as st

from preforkd.errors import (
    ApplicationError,
    ConfigurationError,
    InternalError,
    Place,
    Problem,
    SystemFailure,
)
from preforkd.ipc import messages

EXAMPLES = [
    messages.Load(1, b"x", ("a",)),
    messages.Fork(1, 2),
    messages.Dismiss(),
    messages.Loaded(0.5),
    messages.LoadFailed(messages.Problem("application", "r", "d", "h")),
    messages.Forked(1, 2),
    messages.ForkFailed(1, "r"),
    messages.Ready(),
    messages.Failed(messages.Problem("system", "r")),
    messages.Leaving("r"),
    messages.ActivityResumed(),
    messages.Serve(),
    messages.Retire(1.5),
    messages.Retire(within=2.5),
    messages.Trim(),
]


def test_every_message_survives_the_wire():
    """Each is known by its tag among all of them."""
    unions = messages.ToZygote | messages.FromZygote | messages.ToWorker | messages.FromWorker
    for message in EXAMPLES:
        data = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(data, type=unions) == message


@given(st.binary(max_size=100))
def test_noise_is_no_message(data):
    """Whatever a child sends, decoding ends in a message or in an error of its value."""
    with contextlib.suppress(ValueError):  # msgspec.DecodeError, or UnicodeDecodeError
        msgspec.msgpack.decode(data, type=messages.FromWorker)


def test_evidence_is_cut_at_its_beginning():
    """The end of a traceback, where the error is, arrives."""
    long = "begin" + "x" * 100_000 + "end"
    assert messages.clipped("short") == "short"
    assert messages.clipped(long).endswith("xend")
    assert len(messages.clipped(long)) < 61_000


def test_an_error_travels_with_its_blame_and_its_setting():
    """Whoever it is told by; the hint of the first problem counts where the whole has none."""
    told = messages.problem_of(ApplicationError("m", detail="d", hint="h"))
    assert told == messages.Problem("application", "m", "d", "h")
    assert messages.problem_of(SystemFailure("m")).blame == "system"
    assert messages.problem_of(InternalError("m")).blame == "internal"
    problem = Problem(Place("the settings"), "tls.key", "gone", "a file")
    told = messages.problem_of(ConfigurationError([problem]))
    assert told == messages.Problem("configuration", "tls.key: gone", "", "a file", "tls.key")
    assert messages.problem_of(ConfigurationError([problem], hint="more")).hint == "more"


def test_a_problem_may_be_of_any_text():
    """What an exception says may be no UTF-8; it is escaped, and travels."""
    problem = messages.Problem("application", "caf\udce9", "\ud800", "\u20ac")
    assert (problem.reason, problem.detail, problem.hint) == ("caf\\udce9", "\\ud800", "\u20ac")
    assert msgspec.msgpack.encode(messages.Failed(problem))
