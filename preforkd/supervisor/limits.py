"""From settings to what the policy may do: how many workers, and how long each step may take."""

import math

from msgspec.structs import replace

from preforkd.config.settings import Settings
from preforkd.core.model import Limits

_LEAST = 4
_PER_CPU = 2


def limits_of(settings: Settings, cpus: int, by_hand: int | None = None) -> Limits:
    """Return the limits that these settings ask for on a machine with so many usable CPUs.

    ``by_hand`` is a size that was asked for in place of that of the settings.
    """
    floor, most = _sizes(settings, cpus) if by_hand is None else (by_hand, by_hand)
    surge = most if settings.reload.surge == "all" else settings.reload.surge
    return Limits(
        floor=floor,
        target=floor,
        maximum=most,
        surge=surge,
        spare=settings.workers.spare,
        start=settings.timeouts.start,
        boot=settings.timeouts.boot,
        drain=settings.timeouts.drain,
        age=settings.limits.age or math.inf,
    )


def _sizes(settings: Settings, cpus: int) -> tuple[int, int]:
    workers = settings.workers
    if workers.max and workers.count == "auto":  # an option may give a count to a file with a max
        # Spare workers are idle ones, so there are as many of them when nobody is busy.
        return max(1, workers.min, workers.spare), workers.max
    fixed = max(_LEAST, _PER_CPU * cpus) if workers.count == "auto" else workers.count
    return fixed, fixed


def while_reloading(old: Limits, new: Limits) -> Limits:
    """Return the limits while a candidate starts: the sizes that are, the patience that was asked.

    The old generation keeps its size until the candidate has taken over; a candidate that fails
    has then changed nothing.
    """
    return replace(old, start=new.start, boot=new.boot, candidate=new)


def linger_of(settings: Settings) -> float:
    """Return for how many seconds a retiring worker's idle connections may stay open.

    As long as an idle connection is promised, but so that the worker has left before it is killed.
    """
    return min(settings.http.keep_alive, 0.8 * settings.timeouts.drain)
