"""From settings to what the policy may do: how many workers, and how long each step may take."""

from dataclasses import replace

from preforkd.config.settings import Settings
from preforkd.core.model import Limits

_LEAST = 4
_PER_CPU = 2


def limits_of(settings: Settings, cpus: int) -> Limits:
    """Return the limits that these settings ask for on a machine with so many usable CPUs."""
    count = settings.workers.count
    target = max(_LEAST, _PER_CPU * cpus) if count == "auto" else count
    surge = target if settings.reload.surge == "all" else settings.reload.surge
    return Limits(
        floor=target,
        target=target,
        maximum=target,
        surge=surge,
        start=settings.timeouts.start,
        boot=settings.timeouts.boot,
        drain=settings.timeouts.drain,
    )


def while_reloading(old: Limits, new: Limits) -> Limits:
    """Return the limits while a candidate starts: the sizes that are, the patience that was asked.

    The old generation keeps its size until the candidate has taken over; a candidate that fails
    has then changed nothing.
    """
    return replace(old, start=new.start, boot=new.boot)


def linger_of(settings: Settings) -> float:
    """Return for how many seconds a retiring worker's idle connections may stay open.

    As long as an idle connection is promised, but so that the worker has left before it is killed.
    """
    return min(settings.http.keep_alive, 0.8 * settings.timeouts.drain)
