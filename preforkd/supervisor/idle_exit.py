"""Exit when the service is idle; with socket activation the next connection starts it again.

No connection is lost in between: systemd holds the sockets, and connections wait in their backlogs.
systemd.socket(5)
"""

from collections.abc import Callable
from typing import Protocol

from preforkd.loop import Call, Loop


class Watched(Protocol):
    """The master, as far as it knows whether the service is idle."""

    def quiet_since(self) -> float | None:
        """Return since when no worker has been busy (loop time); None while one is or was just now."""

    def open_connections(self) -> int:
        """Return how many connections are open in all workers."""


class IdleExit:
    """Calls ``exit_idle`` when the service has been idle for ``period`` seconds; 0: never.

    It has one timer, due at the earliest time at which that can be true.
    """

    def __init__(self, loop: Loop, watched: Watched, exit_idle: Callable[[], None]) -> None:
        self._loop = loop
        self._watched = watched
        self._exit = exit_idle
        self._period = 0.0
        self._timer: Call | None = None

    def set_period(self, period: float) -> None:
        """Set the period, and start the timer anew."""
        self._period = period
        self.close()
        if period:
            self._timer = self._loop.call_later(period, self._check)

    def _check(self) -> None:
        now = self._loop.time()
        since = self._watched.quiet_since()
        if since is None or self._watched.open_connections():
            since = now
        due = since + self._period
        if now >= due:
            self._exit()
        else:
            self._timer = self._loop.call_at(due, self._check)

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
