"""How much somebody may say: what goes beyond is read later, so that it costs the master little."""

import msgspec

PERIOD = 1.0
"""Seconds for which a ration is."""


class RateLimit(msgspec.Struct):
    """Counts messages, or lines; ``limit`` of them are read in each period."""

    limit: int
    since: float = float("-inf")
    read: int = 0
    exceeded: bool = False
    """It has been, at some time."""

    def take(self, now: float, count: int = 1) -> float:
        """Count messages at this time; return for how many seconds none is to be read after them."""
        if now - self.since >= PERIOD:
            self.since, self.read = now, 0
        self.read += count
        return self.since + PERIOD - now if self.read >= self.limit else 0.0
