"""Rate limits."""

from preforkd.ipc.ratelimit import RateLimit


def test_the_excess_waits_for_the_next_period():
    """Messages up to the limit are read at once; then none until the next period."""
    ratelimit = RateLimit(3)
    assert [ratelimit.take(10.0), ratelimit.take(10.1), ratelimit.take(10.25)] == [0.0, 0.0, 0.75]
    assert [ratelimit.take(11.0), ratelimit.take(11.0), ratelimit.take(11.5)] == [0.0, 0.0, 0.5]


def test_below_the_limit_nothing_waits():
    """Two messages in each second never reach three."""
    ratelimit = RateLimit(3)
    assert not any(ratelimit.take(second + part) for second in range(9) for part in (0.0, 0.5))
