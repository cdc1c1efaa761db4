"""Delays after failures."""

from preforkd.core.backoff import CEILING, MEMORY, FailureStreak, delay_after


def test_delays_grow_to_a_ceiling():
    """0, 0.25, 0.5, 1 … 30."""
    delays = [delay_after(strikes) for strikes in range(12)]
    assert delays[:5] == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == delay_after(10**6) == CEILING


def test_failed_starts_wait_from_the_first():
    """And a start that succeeds forgives them."""
    once = FailureStreak().after_failed_start(100.0)
    assert once.retry_at == 100.25
    twice = once.after_failed_start(101.0)
    assert twice.retry_at == 101.5
    assert twice.forgive_boots().after_failed_start(102.0).retry_at == 102.25


def test_starts_that_fail_together_count_once():
    """Those that had begun before the last failure are the same attempt; later ones are the next."""
    strikes = FailureStreak()
    for _ in range(32):
        strikes = strikes.after_failed_start(100.0, begun=99.0)
    assert (strikes.boots, strikes.retry_at) == (1, 100.25)
    assert strikes.after_failed_start(100.4, begun=100.3).boots == 2


def test_short_lives_wait_from_the_sixth():
    """One crash must not cost capacity; the same crash again and again must not spin."""
    strikes = FailureStreak()
    for _ in range(5):
        strikes = strikes.after_death(100.0, short=True)
        assert strikes.retry_at <= 100.0
    assert strikes.after_death(100.0, short=True).retry_at == 100.25
    assert strikes.after_death(100.0, short=False).short_lives == 0


def test_strikes_are_forgotten():
    """After a minute without one."""
    many = FailureStreak(boots=9, last=100.0).after_failed_start(100.0 + MEMORY + 1)
    assert many.boots == 1
