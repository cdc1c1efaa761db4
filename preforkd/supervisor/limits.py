"""Derive the limits of the policy from the settings: how many workers, how long each step may take."""

import math

from msgspec.structs import replace

from preforkd.config.settings import Settings
from preforkd.core.model import Limits

_LEAST = 4
_PER_CPU = 2


def limits_of(settings: Settings, cpus: int, by_hand: int | None = None) -> Limits:
    """Return the limits of these settings on a machine with ``cpus`` usable CPUs.

    ``by_hand`` is a size that an administrator has set in place of that of the settings.
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
        retry=settings.app.preload,
    )


def _sizes(settings: Settings, cpus: int) -> tuple[int, int]:
    workers = settings.workers
    if workers.max and workers.count == "auto":  # an option may give a count to a file with a max
        # Spare workers are idle ones, so an idle pool has at least as many.
        return max(1, workers.min, workers.spare), workers.max
    fixed = max(_LEAST, _PER_CPU * cpus) if workers.count == "auto" else workers.count
    return fixed, fixed


def while_reloading(old: Limits, new: Limits) -> Limits:
    """Return the limits while a candidate starts: the sizes of ``old``, the start timeouts of ``new``.

    The old generation keeps its size until the candidate is promoted, so that a candidate that fails
    has changed nothing.
    """
    return replace(old, start=new.start, boot=new.boot, candidate=new)


def linger_of(settings: Settings) -> float:
    """Return for how many seconds a retiring worker may keep idle connections open.

    As long as http.keep_alive promises, but shorter than timeouts.drain, after which it is killed.
    """
    return min(settings.http.keep_alive, 0.8 * settings.timeouts.drain)
