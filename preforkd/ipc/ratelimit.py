"""Rate limits on what the master reads: messages of a child, calls of a client, lines of output.

What exceeds the limit stays unread until the next period, so that its sender blocks or loses it, at little
cost for the master.
"""

import msgspec

PERIOD = 1.0
"""Seconds for which the limit applies."""


class RateLimit(msgspec.Struct):
    """Counts messages or lines; ``limit`` of them are read in each period."""

    limit: int
    since: float = float("-inf")
    read: int = 0
    exceeded: bool = False
    """Whether the limit was ever reached, for the caller to log it once."""

    def take(self, now: float, count: int = 1) -> float:
        """Count messages that were read at ``now``; return for how many seconds to read none."""
        if now - self.since >= PERIOD:
            self.since, self.read = now, 0
        self.read += count
        return self.since + PERIOD - now if self.read >= self.limit else 0.0
