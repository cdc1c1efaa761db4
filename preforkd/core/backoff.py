"""How long to wait before the next start after starts that failed.

A worker that dies in service is replaced at once: one bad request must not cost capacity.  Two things are
slowed down: starts that fail, from the first (the next would fail as well), and lives too short to have
been of use, from the sixth in a row (a crash at the first request, again and again).
"""

from msgspec import Struct
from msgspec.structs import replace

FIRST_DELAY, FACTOR, LONGEST_DELAY = 0.25, 2.0, 30.0
SHORT_LIFE = 1.0
"""Seconds in service below which a life counts as short."""
FREE_SHORT_LIVES = 5
FORGOTTEN_AFTER = 60.0
"""Seconds after which strikes are forgotten."""


class FailureStreak(Struct, frozen=True):
    """Failures of late, and the time (monotonic seconds) before which nothing is started."""

    failed_starts: int = 0
    short_lives: int = 0
    last: float = float("-inf")
    retry_at: float = float("-inf")

    def after_failed_start(self, now: float, *, begun: float = float("inf")) -> "FailureStreak":
        """Return the strikes after a start that failed now.

        One that had ``begun`` before the last failure was part of the same attempt: when many are
        started at once and one cause ends them all, that is one failure.
        """
        if begun <= self.last:
            return self
        return self._forgetting(now)._grown(now, failed_starts=1, short_lives=0)

    def after_death(self, now: float, *, short: bool) -> "FailureStreak":
        """Return the strikes after the end of a worker that had been ready."""
        if not short:
            return replace(self, short_lives=0)
        return self._forgetting(now)._grown(now, failed_starts=0, short_lives=1)

    def after_successful_start(self) -> "FailureStreak":
        """Return the strikes after a start that succeeded."""
        return replace(self, failed_starts=0)

    def _forgetting(self, now: float) -> "FailureStreak":
        forgotten = now - self.last > max(FORGOTTEN_AFTER, 2 * LONGEST_DELAY)
        return replace(self, failed_starts=0, short_lives=0) if forgotten else self

    def _grown(self, now: float, *, failed_starts: int, short_lives: int) -> "FailureStreak":
        failed_starts += self.failed_starts
        short_lives += self.short_lives
        delay = delay_after(failed_starts + max(0, short_lives - FREE_SHORT_LIVES))
        return FailureStreak(failed_starts, short_lives, now, max(self.retry_at, now + delay))


def delay_after(strikes: int) -> float:
    """Return the seconds to wait after this many failures in a row: 0, 0.25, 0.5, 1 … 30."""
    if strikes < 1:
        return 0.0
    return float(min(LONGEST_DELAY, FIRST_DELAY * FACTOR ** min(strikes - 1, 16)))
