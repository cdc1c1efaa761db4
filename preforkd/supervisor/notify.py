"""Notify systemd: the STATUS line when it changed, the watchdog's ping, extensions of timeouts."""

import logging
from collections.abc import Callable

from preforkd.linux.sd_notify import Notifier
from preforkd.logs import catalog
from preforkd.loop import Call, Loop

logger = logging.getLogger("preforkd.master")

PERIOD = 1.0
"""Shortest time between two STATUS lines, in seconds."""
EXTENSION = 10.0
"""Seconds by which a timeout is extended at a time."""
_EXTENSION_PERIOD = 2.0
"""Seconds between two extensions: the longest time for which systemd may have forgotten one."""


class StatusNotifier:
    """Sends the STATUS line that ``text`` returns."""

    def __init__(self, loop: Loop, notifier: Notifier, text: Callable[[], str]) -> None:
        self.notifier = notifier
        self._loop = loop
        self._text = text
        self._sent = ""
        self._sent_at = float("-inf")
        self._timer: Call | None = None

    def line(self) -> str:
        """Return the current STATUS line, for a notification that includes it."""
        self._sent, self._sent_at = self._text(), self._loop.time()
        return self._sent

    def refresh(self) -> None:
        """Send the line if it changed, now or when the period is over."""
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
    """Sends the watchdog's ping from the loop while ``healthy`` returns true, if WatchdogSec= is set."""

    def __init__(self, loop: Loop, notifier: Notifier, healthy: Callable[[], bool]) -> None:
        self._loop = loop
        self._notifier = notifier
        self._healthy = healthy
        self._withheld = False
        self._timer: Call | None = None

    def start(self) -> None:
        """Ping now, and twice per interval of the watchdog; see sd_watchdog_enabled(3)."""
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
    """Extends systemd's timeout during a step that may take longer.

    In short extensions, repeatedly: systemd forgets an extension at daemon-reload and daemon-reexec, and a
    master that hangs must not have been granted all of the time. An extension never shortens the timeout of
    the unit. EXTEND_TIMEOUT_USEC, sd_notify(3)
    """

    def __init__(self, loop: Loop, notifier: Notifier) -> None:
        self._loop = loop
        self._notifier = notifier
        self._until = float("-inf")
        self._timer: Call | None = None

    def begin(self, seconds: float) -> None:
        """Extend from now on, for at most ``seconds``."""
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
        """Stop extending: the step is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
