"""Delays after failures."""

import pytest

from preforkd.core.backoff import (
    FORGOTTEN_AFTER,
    LONGEST_DELAY,
    SHORT_LIFE,
    FailureStreak,
    delay_after,
)


def test_delays_grow_to_a_ceiling():
    """0, 0.25, 0.5, 1 … 30."""
    delays = [delay_after(failures) for failures in range(12)]
    assert delays[:5] == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == delay_after(10**6) == LONGEST_DELAY


def test_failed_starts_wait_from_the_first():
    """And a start that succeeds forgives them."""
    once = FailureStreak().after_failed_start(100.0)
    assert once.retry_at == 100.25
    twice = once.after_failed_start(101.0)
    assert twice.retry_at == 101.5
    assert twice.after_successful_start().after_failed_start(102.0).retry_at == 102.25


def test_starts_that_fail_together_count_once():
    """Those that had begun before the last failure are the same attempt; later ones are the next."""
    streak = FailureStreak()
    for _ in range(32):
        streak = streak.after_failed_start(100.0, begun=99.0)
    assert (streak.failed_starts, streak.retry_at) == (1, 100.25)
    assert streak.after_failed_start(100.4, begun=100.0).failed_starts == 1
    assert streak.after_failed_start(100.4, begun=100.3).failed_starts == 2


def test_short_lives_wait_from_the_sixth():
    """One crash must not cost capacity; the same crash again and again must not spin."""
    streak = FailureStreak()
    for _ in range(5):
        streak = streak.after_death(100.0, short=True)
        assert streak.retry_at <= 100.0
    assert streak.after_death(100.0, short=True).retry_at == 100.25
    assert streak.after_death(100.0, short=False).short_lives == 0


@pytest.mark.parametrize(("quiet", "failures"), [(60.0, 10), (60.001, 1)])
def test_failures_are_forgotten_after_a_minute_without_one(quiet, failures):
    """Of both kinds; at the full minute they still count. A life of a second is not short."""
    assert (FORGOTTEN_AFTER, SHORT_LIFE) == (60.0, 1.0)
    many = FailureStreak(failed_starts=9, short_lives=9, last=100.0)
    started = many.after_failed_start(100.0 + quiet)
    assert (started.failed_starts, started.short_lives) == (failures, failures - 1)
    died = many.after_death(100.0 + quiet, short=True)
    assert (died.failed_starts, died.short_lives) == (failures - 1, failures)


def test_a_later_retry_is_never_made_earlier():
    """The delay that runs stays, and both kinds of failure add up."""
    streak = FailureStreak(retry_at=200.0).after_failed_start(100.0)
    assert (streak.retry_at, streak.last) == (200.0, 100.0)
    streak = FailureStreak(failed_starts=1, short_lives=5, last=100.0).after_death(
        100.0, short=True
    )
    assert streak == FailureStreak(failed_starts=1, short_lives=6, last=100.0, retry_at=100.5)
