"""When the slots are looked at: only while something happens.

A worker that becomes busy rings (its slot's bell); from then on looks follow each other, as soon as whoever
is told of them wants the next, until one finds nobody busy and nothing answered since the one
before. Then the bells are armed again, and nothing is read.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from preforkd.linux.loop import Call, Loop


class Glance(msgspec.Struct, frozen=True):
    """What workers say of themselves: since when who is busy (loop time), and who has answered how much."""

    busy: dict[int, float] = {}
    requests: dict[int, int] = {}


class Slots(Protocol):
    """What is looked at."""

    def glance(self, now: float) -> Glance:
        """Return what all workers say now."""

    def arm(self) -> None:
        """Ask each worker to ring when it becomes busy."""


class Lookout:
    """See the module.

    ``tell`` is called with each glance and returns the seconds until the next one at the latest.
    """

    def __init__(self, loop: Loop, slots: Slots, tell: Callable[[Glance], float]) -> None:
        self._loop = loop
        self._slots = slots
        self._tell = tell
        self._timer: Call | None = None
        self._last = Glance()
        self._awake = False
        self._quiet_at = loop.time()

    def quiet_since(self) -> float | None:
        """Return since when all has been quiet (loop time); None while it is not."""
        return None if self._awake else self._quiet_at

    def bell(self) -> None:
        """Take a worker's bell: look now, and from now on."""
        if not self._awake:
            self._awake = True
            self._last = Glance()
            self._look()

    def _look(self) -> None:
        now = self._loop.time()
        glance = self._slots.glance(now)
        quiet = _quiet(glance, self._last)
        if quiet:
            self._slots.arm()
            # One that became busy between the look and the arming did not ring.
            glance = self._slots.glance(now)
            quiet = _quiet(glance, self._last)
        self._last = glance
        if quiet:
            self._awake = False
            self._quiet_at = now
        delay = self._tell(glance)
        if self._awake:
            self._timer = self._loop.call_later(delay, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()


def _quiet(glance: Glance, last: Glance) -> bool:
    return not glance.busy and glance.requests == last.requests
