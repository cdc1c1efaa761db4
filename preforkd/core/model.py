"""The states of workers, zygotes and generations, and the limits of the policy."""

import math
from enum import StrEnum

from msgspec import Struct


class WorkerState(StrEnum):
    """The states of a worker, in order."""

    FORKING = "forking"
    """Requested from the zygote; no process is known yet."""
    STARTING = "starting"
    """The process exists and is not ready."""
    READY = "ready"
    """It can serve; whether it does depends on its generation having been promoted."""
    RETIRING = "retiring"
    """It drains: it finishes its requests, accepts no more, and exits."""
    KILLED = "killed"
    """SIGKILL was sent; the kernel has not reported the end yet."""


BOOTING = frozenset({WorkerState.FORKING, WorkerState.STARTING})
ALIVE = BOOTING | {WorkerState.READY}


class ZygoteState(StrEnum):
    """The states of a zygote, in order."""

    LOADING = "loading"
    READY = "ready"
    DISMISSED = "dismissed"
    KILLED = "killed"


USABLE = frozenset({ZygoteState.LOADING, ZygoteState.READY})


class Role(StrEnum):
    """The role of a generation."""

    CANDIDATE = "candidate"
    """It is starting; none of its workers serves yet."""
    CURRENT = "current"
    """The newest that serves; exactly one, once the first was promoted."""
    OLD = "old"
    """Its workers serve until those of the current one have replaced them."""
    ABANDONED = "abandoned"
    """It was a candidate and failed; it never served."""


class Limits(Struct, frozen=True):
    """The limits of the policy: numbers of workers, and seconds.

    With ``floor`` ready workers the service is ready. ``target`` is the initial size, ``maximum`` the largest;
    ``surge`` more workers may exist during a rollout or while workers are replaced. ``spare`` workers are kept in
    addition to those with long requests. A pool whose ``floor`` is its ``maximum`` has a fixed size.
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
    """Age after which a worker is replaced."""
    retry: bool = True
    """At the first start a worker that failed is started again until ``start``. False: the workers load the
    application, which would fail the same way again."""
    stopped: float = 10.0
    """Longest time that a worker or zygote may be stopped (SIGSTOP)."""
    stacks_timeout: float = 0.3
    """Time that a worker with an overdue request has to write its stacks."""
    candidate: "Limits | None" = None
    """The limits from the promotion of the candidate on; None: the same."""

    def __post_init__(self) -> None:
        sizes = self.spare <= self.floor or not self.elastic
        if not 1 <= self.floor <= self.target <= self.maximum or self.surge < 1 or not sizes:
            raise ValueError(f"limits contradict each other: {self}")

    @property
    def elastic(self) -> bool:
        """Return whether the policy may change the size."""
        return self.floor < self.maximum
