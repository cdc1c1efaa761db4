"""The nouns of the pool: states of workers, zygotes and generations, and the policy's limits."""

import math
from enum import StrEnum

from msgspec import Struct


class WorkerState(StrEnum):
    """A worker's way through life, in order."""

    FORKING = "forking"
    """The zygote was asked; no process is known yet."""
    STARTING = "starting"
    """The process lives and has not said that it can serve."""
    READY = "ready"
    """It can serve; whether it does depends on its generation having been promoted."""
    RETIRING = "retiring"
    """It was told to leave, or said that it does; it may be finishing a request."""
    KILLED = "killed"
    """SIGKILL was sent; the kernel has yet to report the end."""


BOOTING = frozenset({WorkerState.FORKING, WorkerState.STARTING})
ALIVE = BOOTING | {WorkerState.READY}


class ZygoteState(StrEnum):
    """A zygote's way through life, in order."""

    LOADING = "loading"
    READY = "ready"
    DISMISSED = "dismissed"
    KILLED = "killed"


USABLE = frozenset({ZygoteState.LOADING, ZygoteState.READY})


class Role(StrEnum):
    """What a generation is to the service."""

    CANDIDATE = "candidate"
    """It is being brought up; none of its workers serves yet."""
    CURRENT = "current"
    """The newest that serves; exactly one, once the first was promoted."""
    OLD = "old"
    """It serves only until the current one has taken over."""
    ABANDONED = "abandoned"
    """It was a candidate and failed; it never served."""


class Limits(Struct, frozen=True):
    """What the policy may do. Numbers of workers, and seconds.

    ``floor`` workers make the service ready; ``target`` is the size to begin with, ``maximum`` the most it
    may ever be, ``surge`` how many more may run beside them while generations or workers change places.
    ``spare`` idle workers are kept beside those that are busy. A pool whose ``floor`` is its ``maximum``
    has a fixed size.
    """

    floor: int
    target: int
    maximum: int
    surge: int
    spare: int = 0
    start: float = 60.0
    boot: float = 30.0
    drain: float = 30.0
    dismiss: float = 5.0
    age: float = math.inf
    """How old a worker may become before another takes its place."""
    stopped: float = 10.0
    """How long a worker or a zygote may be stopped (SIGSTOP)."""
    stacks_timeout: float = 0.3
    """How long a worker whose request is overdue has to write its stacks."""
    candidate: "Limits | None" = None
    """Those that hold as soon as the candidate is promoted; None: the same."""

    def __post_init__(self) -> None:
        sizes = self.spare <= self.floor or not self.elastic
        if not 1 <= self.floor <= self.target <= self.maximum or self.surge < 1 or not sizes:
            raise ValueError(f"limits contradict each other: {self}")

    @property
    def elastic(self) -> bool:
        """Tell whether the size may change by itself."""
        return self.floor < self.maximum
