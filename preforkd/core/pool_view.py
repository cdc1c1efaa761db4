"""The input of a rule of the policy, and queries that several rules share."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from preforkd.core import events as ev
from preforkd.core.model import Limits, WorkerState
from preforkd.core.rows import GenerationRow
from preforkd.core.scoreboard import Scoreboard

READY = frozenset({WorkerState.READY})


class PoolView(Struct, frozen=True):
    """The scoreboard, the limits, and the time in monotonic seconds."""

    board: Scoreboard
    limits: Limits
    now: float

    @property
    def size(self) -> int:
        """The wanted number of workers."""
        return size_of(self.board, self.limits)


Rule = Callable[[PoolView], Iterator[ev.Action]]


def size_of(board: Scoreboard, limits: Limits) -> int:
    """Return the wanted number of workers, within the limits."""
    wanted = board.demand.size or limits.target
    return min(max(wanted, limits.floor), limits.maximum)


def wanted_generations(board: Scoreboard) -> list[GenerationRow]:
    """Return the generations that need workers.

    The current one first: a serving worker is replaced before the candidate uses the room.
    """
    return [row for row in (board.current, board.candidate) if row is not None]
