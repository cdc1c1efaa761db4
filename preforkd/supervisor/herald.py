"""What the service says of itself to systemd: STATUS on change and seldom, the watchdog's ping.

Whether workers are busy is read from their slots, at most once a second and only while something
happens: a worker that becomes busy rings (its slot's bell), and when all is quiet the bells are
armed again and nothing is read.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from preforkd.core import catalog
from preforkd.linux.notify import Notifier

logger = logging.getLogger("preforkd.master")

PERIOD = 1.0
"""Seconds between two STATUS lines, and between two looks at the slots, at the least."""


class Slots(Protocol):
    """What the herald looks at."""

    def activity(self) -> tuple[int, int]:
        """Return how many workers are busy, and a number that grows with each request."""

    def arm(self) -> None:
        """Ask each worker to ring when it becomes busy."""


class Herald:
    """See the module; ``text`` returns the STATUS line for a number of busy workers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        notifier: Notifier,
        slots: Slots,
        text: Callable[[int], str],
    ) -> None:
        self.notifier = notifier
        self.busy = 0
        self._loop = loop
        self._slots = slots
        self._text = text
        self._served = 0
        self._said = ""
        self._said_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._sampled_at = float("-inf")
        self._quiet_at = loop.time()
        self._awake = False

    def line(self) -> str:
        """Return the STATUS line of now, for a message that carries it along with its news."""
        self.busy, self._served = self._slots.activity()
        self._said, self._said_at = self._text(self.busy), self._loop.time()
        return self._said

    def quiet_since(self) -> float | None:
        """Return since when all has been quiet (loop time); None while it is not."""
        return None if self._awake else self._quiet_at

    def bell(self) -> None:
        """Take a worker's bell: look at the slots from now on until all is quiet again."""
        self._awake = True
        self.refresh()

    def refresh(self) -> None:
        """Something changed: say so, now or as soon as the period is over."""
        now = self._loop.time()
        if self._awake and now - self._sampled_at >= PERIOD:
            self._sample(now)
        text = self._text(self.busy)
        if text != self._said and now - self._said_at >= PERIOD:
            self._said, self._said_at = text, now
            if not self.notifier.status(text):
                self._said = ""
        self._sleep(now, pending=text != self._said)

    def _sample(self, now: float) -> None:
        self._sampled_at = now
        served_before = self._served
        self.busy, self._served = self._slots.activity()
        if not self.busy and self._served == served_before:
            self._awake = False
            self._slots.arm()
            # One that became busy between the look and the arming did not ring.
            self.busy, self._served = self._slots.activity()
            self._awake = self.busy > 0 or self._served != served_before
            if not self._awake:
                self._quiet_at = now

    def _sleep(self, now: float, *, pending: bool) -> None:
        times = []
        if self._awake:
            times.append(self._sampled_at + PERIOD)
        if pending:
            times.append(self._said_at + PERIOD)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if times:
            self._timer = self._loop.call_at(max(now, min(times)), self.refresh)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()


class Watchdog:
    """Pings from a loop that turned, if ``healthy`` says so; silent without WatchdogSec=."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, notifier: Notifier, healthy: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._notifier = notifier
        self._healthy = healthy
        self._complained = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ping now, and twice in each interval that systemd grants (sd_watchdog_enabled(3))."""
        interval = self._notifier.watchdog_interval
        if interval is None:
            return
        if self._healthy():
            self._notifier.watchdog()
            self._complained = False
        elif not self._complained:
            self._complained = True
            logger.error(
                "no worker serves and none is on its way: the watchdog is not fed",
                extra={"journal": {"MESSAGE_ID": catalog.WATCHDOG_WITHHELD.id}},
            )
        self._timer = self._loop.call_later(interval / 2, self.start)

    def close(self) -> None:
        """Stop pinging."""
        if self._timer is not None:
            self._timer.cancel()
