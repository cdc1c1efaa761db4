"""Rations: how much of what a child says is read."""

from preforkd.ipc.ratelimit import RateLimit


def test_what_goes_beyond_waits_for_the_next_second():
    """So many messages are read at once; then none until the second is over, and as many again."""
    ratelimit = RateLimit(3)
    assert [ratelimit.take(10.0), ratelimit.take(10.1), ratelimit.take(10.25)] == [0.0, 0.0, 0.75]
    assert [ratelimit.take(11.0), ratelimit.take(11.0), ratelimit.take(11.5)] == [0.0, 0.0, 0.5]


def test_who_says_little_is_always_heard():
    """Two messages in each second never reach three."""
    ratelimit = RateLimit(3)
    assert not any(ratelimit.take(second + part) for second in range(9) for part in (0.0, 0.5))
