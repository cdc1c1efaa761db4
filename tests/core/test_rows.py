"""Rows of the scoreboard; what events do to them is in test_scoreboard.py."""

from preforkd.core.rows import REFORK_PAUSE, ReforkAttempt


def test_pauses_between_failed_reforks_double_up_to_a_bound():
    """10 s, 20 s … 2560 s; the request is forgotten, the number of failures is not."""
    attempt, pauses = ReforkAttempt("2000 requests", warmest=3), []
    for failures in range(1, 12):
        attempt = attempt.after_failure(100.0)
        assert attempt == ReforkAttempt(failures=failures, retry_at=attempt.retry_at)
        pauses.append(attempt.retry_at - 100.0)
    assert pauses == [REFORK_PAUSE * min(2**turn, 256) for turn in range(11)]
