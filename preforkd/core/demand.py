"""The demand on the pool, from the last samples, and the size that followed from it.

A sample is a reading of all slots and of the backlogs. It is taken while workers are active; an idle service is
not sampled, and its workers count as idle.
"""

import math

from msgspec import Struct
from msgspec.structs import replace

from preforkd.core.events import PoolObserved

BUCKET = 5.0
"""Seconds that share one peak."""
WINDOW = 30.0
"""Seconds for which a peak is remembered, and after a growth in which the pool does not shrink."""
GROWTH_PERIOD = 1.0
"""Seconds after a growth in which the pool counts as growing: the next step is twice as large."""
FIRST_STEP = 2


class Demand(Struct, frozen=True):
    """The demand on the pool. Times are monotonic seconds."""

    size: int = 0
    """The size that the policy chose; 0: none yet, `Limits.target` holds."""
    sample: PoolObserved = PoolObserved()
    sampled_at: float = -math.inf
    waiting_since: float | None = None
    """Since when every sample has found waiting connections and no idle worker.

    While the pool grows: more waiting connections than idle workers.
    """
    memory_short: bool = False
    """The system reported memory pressure, and the policy has not answered yet."""
    grown_at: float = -math.inf
    shrunk_at: float = -math.inf
    step: int = FIRST_STEP
    """The largest number of workers of the next growth."""
    peaks: tuple[tuple[float, int], ...] = ()
    """For each `BUCKET`: when it began, and the largest number of busy workers in it."""

    def after_sample(self, sample: PoolObserved, idle: int, now: float) -> "Demand":
        """Return the demand after a sample; ``idle`` is the number of serving workers that were not busy."""
        growing = now - self.grown_at <= GROWTH_PERIOD
        # Workers that were forked a moment ago have not accepted their connections yet.
        starved = sample.waiting > idle if growing else sample.waiting > 0 and idle == 0
        since = self.waiting_since if self.waiting_since is not None else now
        return replace(
            self,
            sample=sample,
            sampled_at=now,
            waiting_since=since if starved else None,
            step=self.step if growing else FIRST_STEP,
            peaks=self._with_peak(len(sample.busy), now),
        )

    def _with_peak(self, busy: int, now: float) -> tuple[tuple[float, int], ...]:
        peaks = [peak for peak in self.peaks if expiry(peak) > now]
        if peaks and now - peaks[-1][0] < BUCKET:
            start, most = peaks.pop()
            return (*peaks, (start, max(most, busy)))
        return (*peaks, (now, busy)) if busy else tuple(peaks)

    def resized(self, size: int, before: int, now: float) -> "Demand":
        """Return the demand after a `Resize` from ``before`` to ``size``."""
        if size > before:
            return replace(self, size=size, grown_at=now, step=self.step * 2, memory_short=False)
        return replace(self, size=size, shrunk_at=now, memory_short=False)


def expiry(peak: tuple[float, int]) -> float:
    """Return the time at which a peak no longer counts."""
    return peak[0] + BUCKET + WINDOW
