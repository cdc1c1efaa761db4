"""Delays before the next start after failed ones.

A worker that dies in service is replaced at once: one bad request must not cost capacity. Two things are delayed:
a start after a failed one (it would probably fail as well), and a replacement after the sixth short life in a row
(a crash at the first request, again and again).
"""

from msgspec import Struct
from msgspec.structs import replace

FIRST_DELAY, FACTOR, LONGEST_DELAY = 0.25, 2.0, 30.0
SHORT_LIFE = 1.0
"""Seconds in service below which a life counts as short."""
FREE_SHORT_LIVES = 5
FORGOTTEN_AFTER = 60.0
"""Seconds without a failure after which the earlier ones no longer count."""


class FailureStreak(Struct, frozen=True):
    """Consecutive failures, and the time (monotonic seconds) before which nothing is started."""

    failed_starts: int = 0
    short_lives: int = 0
    last: float = float("-inf")
    retry_at: float = float("-inf")

    def after_failed_start(self, now: float, *, begun: float = float("inf")) -> "FailureStreak":
        """Return the streak after a start that failed now.

        A start that had ``begun`` before the last failure belongs to the same attempt: when many workers are
        started at once and one cause ends them all, that is one failure.
        """
        if begun <= self.last:
            return self
        return self._forgetting(now)._grown(now, failed_starts=1, short_lives=0)

    def after_death(self, now: float, *, short: bool) -> "FailureStreak":
        """Return the streak after a worker that had been ready exited unexpectedly."""
        if not short:
            return replace(self, short_lives=0)
        return self._forgetting(now)._grown(now, failed_starts=0, short_lives=1)

    def after_successful_start(self) -> "FailureStreak":
        """Return the streak after a start that succeeded."""
        return replace(self, failed_starts=0)

    def describe(self) -> str:
        """Return the number of consecutive failures in words."""
        count = self.failed_starts + self.short_lives
        return "1 start failure" if count == 1 else f"{count} consecutive start failures"

    def _forgetting(self, now: float) -> "FailureStreak":
        forgotten = now - self.last > max(FORGOTTEN_AFTER, 2 * LONGEST_DELAY)
        return replace(self, failed_starts=0, short_lives=0) if forgotten else self

    def _grown(self, now: float, *, failed_starts: int, short_lives: int) -> "FailureStreak":
        failed_starts += self.failed_starts
        short_lives += self.short_lives
        delay = delay_after(failed_starts + max(0, short_lives - FREE_SHORT_LIVES))
        return FailureStreak(failed_starts, short_lives, now, max(self.retry_at, now + delay))


def delay_after(failures: int) -> float:
    """Return the delay in seconds after this many consecutive failures: 0, 0.25, 0.5, 1 … 30."""
    if failures < 1:
        return 0.0
    return float(min(LONGEST_DELAY, FIRST_DELAY * FACTOR ** min(failures - 1, 16)))
