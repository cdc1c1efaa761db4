"""What the service says of itself to systemd: STATUS on change and seldom, and the watchdog's ping."""

import logging
from collections.abc import Callable

from preforkd.linux.sd_notify import Notifier
from preforkd.logs import catalog
from preforkd.loop import Call, Loop

logger = logging.getLogger("preforkd.master")

PERIOD = 1.0
"""Seconds between two STATUS lines, at the least."""
EXTENSION = 10.0
"""Seconds that systemd is asked for at a time."""
_EXTENSION_PERIOD = 2.0
"""Seconds after which it is asked again: as long at the most it has forgotten what it granted."""


class StatusNotifier:
    """Says what ``text`` returns, the STATUS line."""

    def __init__(self, loop: Loop, notifier: Notifier, text: Callable[[], str]) -> None:
        self.notifier = notifier
        self._loop = loop
        self._text = text
        self._sent = ""
        self._sent_at = float("-inf")
        self._timer: Call | None = None

    def line(self) -> str:
        """Return the STATUS line of now, for a message that carries it along with its news."""
        self._sent, self._sent_at = self._text(), self._loop.time()
        return self._sent

    def refresh(self) -> None:
        """Something changed: say so, now or as soon as the period is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        if now - self._sent_at < PERIOD:
            self._timer = self._loop.call_at(self._sent_at + PERIOD, self.refresh)
            return
        text = self._text()
        if text == self._sent:
            return
        self._sent, self._sent_at = text, now
        if not self.notifier.status(text):
            self._sent = ""
            self._timer = self._loop.call_at(now + PERIOD, self.refresh)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()


class Watchdog:
    """Pings from a loop that turned, if ``healthy`` says so; silent without WatchdogSec=."""

    def __init__(self, loop: Loop, notifier: Notifier, healthy: Callable[[], bool]) -> None:
        self._loop = loop
        self._notifier = notifier
        self._healthy = healthy
        self._withheld = False
        self._timer: Call | None = None

    def start(self) -> None:
        """Ping now, and twice in each interval that systemd grants (sd_watchdog_enabled(3))."""
        interval = self._notifier.watchdog_interval
        if interval is None:
            return
        if self._healthy():
            self._notifier.watchdog()
            self._withheld = False
        elif not self._withheld:
            self._withheld = True
            logger.error(
                "no worker is serving or starting; withholding the watchdog ping",
                extra={"journal": {"MESSAGE_ID": catalog.WATCHDOG_WITHHELD.id}},
            )
        self._timer = self._loop.call_later(interval / 2, self.start)

    def close(self) -> None:
        """Stop pinging."""
        if self._timer is not None:
            self._timer.cancel()


class TimeoutExtender:
    """Asks systemd for time while a step lasts that may take longer than its timeout.

    In short pieces, again and again: what was granted is forgotten by a daemon-reload or daemon-reexec,
    and a master that hangs must not have been granted all of it. An extension never shortens what the
    unit grants. EXTEND_TIMEOUT_USEC, sd_notify(3)
    """

    def __init__(self, loop: Loop, notifier: Notifier) -> None:
        self._loop = loop
        self._notifier = notifier
        self._until = float("-inf")
        self._timer: Call | None = None

    def begin(self, seconds: float) -> None:
        """Ask from now on, for so long at the most."""
        self.end()
        if self._notifier.active:
            self._until = self._loop.time() + seconds
            self._extend()

    def _extend(self) -> None:
        rest = self._until - self._loop.time()
        if rest > 0:
            self._notifier.extend_timeout(min(rest, EXTENSION))
            self._timer = self._loop.call_later(_EXTENSION_PERIOD, self._extend)

    def end(self) -> None:
        """Ask no more: the step is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
