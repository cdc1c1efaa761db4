"""The messages between the processes."""

import contextlib

import msgspec
from hypothesis import given, strategies as st

from preforkd.errors import Blame, Failure
from preforkd.ipc import messages

EXAMPLES = [
    messages.Load(1, b"x", ("a",)),
    messages.Fork(1, 2),
    messages.Dismiss(),
    messages.Loaded(0.5),
    messages.LoadFailed(Failure(Blame.APPLICATION, "r", "d", "h")),
    messages.Forked(1, 2),
    messages.ForkFailed(1, "r"),
    messages.Ready(),
    messages.Failed(Failure(Blame.SYSTEM, "r")),
    messages.Leaving("r"),
    messages.ActivityResumed(),
    messages.Serve(),
    messages.Retire(1.5),
    messages.Retire(timeout=2.5),
    messages.Trim(),
]


def test_every_message_survives_the_wire():
    """Each is known by its tag among all of them."""
    unions = messages.ToZygote | messages.FromZygote | messages.ToWorker | messages.FromWorker
    for message in EXAMPLES:
        data = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(data, type=unions) == message


@given(st.binary(max_size=100))
def test_random_bytes_are_no_message(data):
    """Whatever a child sends, decoding ends in a message or in an error of its value."""
    with contextlib.suppress(ValueError):  # msgspec.DecodeError, or UnicodeDecodeError
        msgspec.msgpack.decode(data, type=messages.FromWorker)


def test_a_failure_has_the_same_keys_in_every_version():
    """A master and the zygote of another version, as in an upgrade, understand each other."""
    failed = messages.Failed(Failure(Blame.SYSTEM, "r", "d", "h", "tls.key"))
    problem = {"blame": "system", "reason": "r", "detail": "d", "hint": "h", "setting": "tls.key"}
    assert msgspec.to_builtins(failed) == {"type": "failed", "problem": problem}
