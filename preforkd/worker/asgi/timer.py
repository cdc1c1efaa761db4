"""One timer of the event loop for all deadlines of a worker's connections."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from preforkd.worker import deadlines
from preforkd.worker.deadlines import Deadlines

logger = logging.getLogger("preforkd.worker")


class Waiting(Enum):
    """What a connection waits for; each has a timeout."""

    OPENING = "the PROXY header"
    FIRST_REQUEST = "the first byte or the headers of a request"
    BODY = "the next part of a body"
    NEXT_REQUEST = "another request, on an idle connection"
    CLOSE = "the client to close"


class Waiter(deadlines.Waiter, Protocol):
    """What can have a deadline."""

    def on_deadline(self, kind: Waiting) -> None:
        """Handle the end of a timeout; the deadline is removed before."""


class Timer:
    """The deadlines; ``timeouts`` has the seconds of each kind."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeouts: Mapping[Waiting, float]) -> None:
        self._loop = loop
        self._deadlines: Deadlines[Waiter, Waiting] = Deadlines(timeouts)
        self._due = math.inf
        """When the timer of the loop fires, by time.monotonic()."""
        self.clear = self._deadlines.clear
        """Remove the deadline of an item; no effect if it has none."""

    def set(self, item: Waiter, kind: Waiting) -> None:
        """Let an item wait for this from now on, instead of what it waited for."""
        deadlines = self._deadlines
        deadlines.set(item, kind)
        if deadlines.soonest < self._due:
            self._arm()

    def _arm(self) -> None:
        # A timer that fires too early finds nothing expired: most deadlines are removed before.
        self._due = self._deadlines.soonest
        self._loop.call_later(max(0.0, self._due - time.monotonic()), self._expire, self._due)

    def _expire(self, due: float) -> None:
        if due != self._due:
            return  # armed again since, for an earlier deadline
        self._due = math.inf
        for item, kind in self._deadlines.expired(time.monotonic()):
            try:
                item.on_deadline(kind)
            except Exception:
                logger.exception("a timeout of a connection failed")
        if self._deadlines.soonest < self._due:
            self._arm()
