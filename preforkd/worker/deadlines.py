"""The deadlines of a worker's connections: one timeout for each thing that a connection waits for.

All items that wait for the same thing have the same timeout, so that each dictionary is ordered by deadline
and its first entry is the next to expire. Setting, clearing and finding the first take constant time.
"""

import math
import time
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

CLOSE_TIMEOUT = 2.0
"""Seconds of a lingering close: input is discarded, so that a reset does not destroy the answer."""


class Waiter(Protocol):
    """What can have a deadline, a connection mostly."""

    waiting: Any
    """What it waits for, a key of the timeouts; None: it has no deadline. Written by `Deadlines` only."""

    def __hash__(self) -> int:
        """Return a hash by identity."""


Kind = TypeVar("Kind")
Item = TypeVar("Item", bound=Waiter)


class Deadlines(Generic[Item, Kind]):
    """The deadlines of items that wait; ``timeouts`` has the seconds of each kind.

    The clock is time.monotonic(). For one thread at a time.
    """

    def __init__(self, timeouts: Mapping[Kind, float]) -> None:
        self.soonest = math.inf
        """A lower bound of all deadlines; `expired` makes it exact, and infinite if there is none."""
        self._kinds: dict[Kind, tuple[dict[Item, float], float]] = {
            kind: ({}, timeout) for kind, timeout in timeouts.items()
        }

    def set(self, item: Item, kind: Kind) -> None:
        """Let an item wait for this from now on, instead of what it waited for."""
        waiting, timeout = self._kinds[kind]
        if item.waiting is kind:
            del waiting[item]  # it goes to the end
        elif item.waiting is not None:
            self.clear(item)
        item.waiting = kind
        waiting[item] = deadline = time.monotonic() + timeout
        if deadline < self.soonest:  # noqa: PLR1730 - a call of min() for each request
            self.soonest = deadline

    def clear(self, item: Item) -> None:
        """Remove the deadline of an item; no effect if it has none."""
        if item.waiting is not None:
            del self._kinds[item.waiting][0][item]
            item.waiting = None

    def of(self, kind: Kind) -> Mapping[Item, float]:
        """Return the items that wait for this, in the order of their deadlines; do not keep a copy."""
        return self._kinds[kind][0]

    def expired(self, now: float) -> list[tuple[Item, Kind]]:
        """Remove the items whose deadline has passed, and return them with what they waited for."""
        late: list[tuple[Item, Kind]] = []
        self.soonest = math.inf
        for kind, (waiting, _) in self._kinds.items():
            while waiting:
                item, deadline = next(iter(waiting.items()))
                if deadline > now:
                    self.soonest = min(self.soonest, deadline)
                    break
                self.clear(item)
                late.append((item, kind))
        return late
