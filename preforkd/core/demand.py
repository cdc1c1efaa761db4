"""What looks at the pool have told of late, and the size that followed from it.

A look is what workers say of themselves and what the kernel says of its queues. It is taken while
something happens; when nobody says anything, nobody is busy.
"""

import math

from msgspec import Struct
from msgspec.structs import replace

from preforkd.core.events import PoolObserved

BUCKET = 5.0
"""Seconds over which one peak is kept."""
WINDOW = 30.0
"""Seconds for which a peak is remembered, and after a growth in which the pool does not shrink."""
GROWTH_PERIOD = 1.0
"""Seconds after a growth in which the next one may be twice as large."""
FIRST_STEP = 2


class Demand(Struct, frozen=True):
    """See the module; times are monotonic seconds."""

    size: int = 0
    """The size that the pool is to have; 0: nobody has wished for one yet."""
    sample: PoolObserved = PoolObserved()
    sampled_at: float = -math.inf
    waiting_since: float | None = None
    """Since when every look has found somebody who waits, and no worker that is idle.

    While the pool grows: more who wait than workers that are idle.
    """
    memory_short: bool = False
    """Memory is short, and nothing was done about it yet."""
    grown_at: float = -math.inf
    shrunk_at: float = -math.inf
    step: int = FIRST_STEP
    """The most by which the next growth may go."""
    peaks: tuple[tuple[float, int], ...] = ()
    """When each stretch of time began, and how many workers were busy in it at the most."""

    def after_sample(self, look: PoolObserved, idle: int, now: float) -> "Demand":
        """Return the demand after a look, at which so many of those that serve were idle."""
        growing = now - self.grown_at <= GROWTH_PERIOD
        # Those that were forked a moment ago have yet to take what waits for them.
        starved = look.waiting > idle if growing else look.waiting > 0 and idle == 0
        since = self.waiting_since if self.waiting_since is not None else now
        return replace(
            self,
            sample=look,
            sampled_at=now,
            waiting_since=since if starved else None,
            step=self.step if growing else FIRST_STEP,
            peaks=self._with_peak(len(look.busy), now),
        )

    def _with_peak(self, busy: int, now: float) -> tuple[tuple[float, int], ...]:
        peaks = [peak for peak in self.peaks if expiry(peak) > now]
        if peaks and now - peaks[-1][0] < BUCKET:
            start, most = peaks.pop()
            return (*peaks, (start, max(most, busy)))
        return (*peaks, (now, busy)) if busy else tuple(peaks)

    def resized(self, size: int, before: int, now: float) -> "Demand":
        """Return the demand after the pool was given a size."""
        if size > before:
            return replace(self, size=size, grown_at=now, step=self.step * 2, memory_short=False)
        return replace(self, size=size, shrunk_at=now, memory_short=False)


def expiry(peak: tuple[float, int]) -> float:
    """Return when a peak is forgotten."""
    return peak[0] + BUCKET + WINDOW
