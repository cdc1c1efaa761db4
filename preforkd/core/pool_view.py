"""What a rule of the policy may look at, and questions that several rules ask."""

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
        """The number of workers that the pool is to have now."""
        return size_of(self.board, self.limits)


Rule = Callable[[PoolView], Iterator[ev.Action]]


def size_of(board: Scoreboard, limits: Limits) -> int:
    """Return the number of workers that the pool is to have now, within its limits."""
    wished = board.demand.size or limits.target
    return min(max(wished, limits.floor), limits.maximum)


def wanted_generations(board: Scoreboard) -> list[GenerationRow]:
    """Return the generations that are to have workers.

    The current one first: who serves is replaced before the candidate gets the room.
    """
    return [row for row in (board.current, board.candidate) if row is not None]
