"""The rows of the scoreboard: one for each worker, zygote and generation.

Times are monotonic seconds.
"""

from msgspec import Struct

from preforkd.core import backoff
from preforkd.core.model import Role, WorkerState, ZygoteState
from preforkd.errors import Failure

REFORK_PAUSE = 10.0
"""Seconds before the next refork after a failed one; doubled at each failure."""


class WorkerRow(Struct):
    """One worker; ``since`` is when its state began, ``born`` when its fork was requested.

    While it is FORKING, ``since`` moves to the time at which its zygote forked another worker: forks are serial.
    """

    worker: int
    slot: int
    generation: int
    zygote: int
    state: WorkerState
    born: float
    since: float
    pid: int | None = None
    serving: bool = False
    was_ready: bool = False
    end_expected: bool = False
    """It retires or was killed, so that its end is no failure."""
    limit_reached: str = ""
    """The limit that it has reached, as text; it serves until its replacement does. Empty: none."""
    overdue: str = ""
    """Which request is overdue, and for how long, as text. Empty: none."""
    dumped_at: float | None = None
    """When its stacks were requested, before it is killed."""
    stopped_at: float | None = None
    """Since when its process has been stopped."""


class ZygoteRow(Struct):
    """One zygote."""

    zygote: int
    generation: int
    state: ZygoteState
    since: float
    pid: int | None = None
    parent: int | None = None
    """The worker that forked it; None: the master executed it."""
    adopted: bool = False
    """It was forked from a worker, and a worker of its own has been ready."""
    failure: Failure | None = None
    """Why its trial failed."""
    stopped_at: float | None = None
    """Since when its process has been stopped."""


class ReforkAttempt(Struct, frozen=True):
    """A requested refork, and how often the last ones failed."""

    reason: str = ""
    """Why a refork was requested; empty: none is."""
    warmest: int = 0
    """The worker that is preferred as the parent."""
    guarded: bool = False
    failures: int = 0
    retry_at: float = float("-inf")

    def after_failure(self, now: float) -> "ReforkAttempt":
        """Return the record after an attempt that failed: a pause, and the next needs a new request."""
        failures = self.failures + 1
        pause = REFORK_PAUSE * float(2 ** min(failures - 1, 8))
        return ReforkAttempt(failures=failures, retry_at=now + pause)


class GenerationRow(Struct):
    """One generation: its role, when it was requested, and its recent failures."""

    generation: int
    role: Role
    since: float
    failure_streak: backoff.FailureStreak = backoff.FailureStreak()
    failure: Failure | None = None
    """The last failure of a start; the reason if a candidate is abandoned."""
    fatal: bool = False
    """The failure is one after which a candidate is abandoned."""
    refork: ReforkAttempt = ReforkAttempt()
