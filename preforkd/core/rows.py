"""The rows of the scoreboard: one for each worker, zygote and generation.

Times are monotonic seconds.
"""

from msgspec import Struct

from preforkd.core import backoff
from preforkd.core.model import Role, WorkerState, ZygoteState
from preforkd.errors import Failure

REFORK_PAUSE = 10.0
"""Seconds before the next attempt to fork a zygote from a worker, twice as many after each failure."""


class WorkerRow(Struct):
    """One worker; ``since`` is when its state began, ``born`` when its fork was asked for.

    While the fork is not answered, ``since`` is when its zygote has last answered another, if that is later.
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
    """It was retired or killed by us, so that its end is no failure."""
    limit_reached: str = ""
    """The limit that it has reached, for people; it serves until another takes its place."""
    overdue: str = ""
    """What takes too long in it, for people."""
    dumped_at: float | None = None
    """When it was asked for its stacks, before it is killed."""
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
    """The worker that it was forked from; None: it has loaded the application itself."""
    adopted: bool = False
    """It was forked from a worker, and has proven itself."""
    failure: Failure | None = None
    """Why it did not prove itself."""
    stopped_at: float | None = None
    """Since when its process has been stopped."""


class ReforkAttempt(Struct, frozen=True):
    """What is wanted of a generation's next zygote, and how the last attempts failed."""

    reason: str = ""
    """Why the zygote is to be forked anew; empty: it is not."""
    warmest: int = 0
    failures: int = 0
    retry_at: float = float("-inf")

    def after_failure(self, now: float) -> "ReforkAttempt":
        """Return the record after an attempt that failed: a pause, and the next needs a new request."""
        failures = self.failures + 1
        pause = REFORK_PAUSE * float(2 ** min(failures - 1, 8))
        return ReforkAttempt(failures=failures, retry_at=now + pause)


class GenerationRow(Struct):
    """One generation: its role, when it began, and how its starts have failed of late."""

    generation: int
    role: Role
    since: float
    failure_streak: backoff.FailureStreak = backoff.FailureStreak()
    failure: Failure | None = None
    """The last failure of a start; what a candidate is abandoned for."""
    fatal: bool = False
    """The failure is one that a candidate does not retry."""
    refork: ReforkAttempt = ReforkAttempt()
