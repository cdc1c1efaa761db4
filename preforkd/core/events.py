"""Facts, the input of the scoreboard, and actions, the output of the policy.

`Scoreboard.apply` takes both: an action changes the scoreboard as well. Workers and zygotes have numbers that are
never reused; a *slot* is a small number that the next worker reuses. A ``reason`` is text for the log.
"""

from msgspec import Struct

from preforkd.errors import Failure

# --- facts ---------------------------------------------------------------------------------------


class GenerationRequested(Struct, frozen=True):
    """A start or a reload: bring up this generation as the candidate."""

    generation: int


class ZygoteSpawned(Struct, frozen=True):
    """The zygote's process exists; it loads the application."""

    zygote: int
    pid: int


class ZygoteLoaded(Struct, frozen=True):
    """The zygote has loaded the application, from this directory if it reported one, and can fork."""

    zygote: int
    directory: str = ""
    preload: bool = True
    """False: it has loaded nothing; its workers will load the application."""


class ZygoteFailed(Struct, frozen=True):
    """The zygote could not be started, or could not load the application; it exits by itself."""

    zygote: int
    failure: Failure


class ZygoteExited(Struct, frozen=True):
    """The zygote's process has ended; ``reason``: its exit status or signal."""

    zygote: int
    reason: str


class ZygoteStopped(Struct, frozen=True):
    """The zygote's process was stopped (SIGSTOP), or continued (``stopped`` is false)."""

    zygote: int
    stopped: bool = True


class WorkerForked(Struct, frozen=True):
    """The worker's process exists and is verified to be a child of the master."""

    worker: int
    pid: int


class WorkerReady(Struct, frozen=True):
    """The worker can serve."""

    worker: int


class WorkerFailed(Struct, frozen=True):
    """The worker reported that it cannot start; it exits by itself."""

    worker: int
    failure: Failure


class WorkerLeaving(Struct, frozen=True):
    """The worker retires by itself: a SIGTERM that the master did not send, or the application's request."""

    worker: int


class WorkerExited(Struct, frozen=True):
    """The worker's process has ended, or was never forked; ``reason``: its exit status, signal or error."""

    worker: int
    reason: str
    out_of_memory: bool = False


class WorkerLimitReached(Struct, frozen=True):
    """The worker has reached a limit and will be replaced; ``reason``: which limit.

    ``planned``: a limit that every worker reaches in time, as a number of requests.
    """

    worker: int
    reason: str
    planned: bool = False


class WorkerOverdue(Struct, frozen=True):
    """The worker's request takes longer than allowed; ``reason``: which request and how long."""

    worker: int
    reason: str


class WorkerRecovered(Struct, frozen=True):
    """The worker's overdue request has ended."""

    worker: int


class WorkerStopped(Struct, frozen=True):
    """The worker's process was stopped (SIGSTOP), or continued (``stopped`` is false)."""

    worker: int
    stopped: bool = True


class PoolObserved(Struct, frozen=True):
    """A sample of the pool: the workers that are busy, and the connections that wait.

    ``long_busy`` counts workers with a long request. ``waiting`` counts connections in the backlogs.
    """

    busy: frozenset[int] = frozenset()
    long_busy: int = 0
    waiting: int = 0


class MemoryShort(Struct, frozen=True):
    """The system reports memory pressure: idle workers of an elastic pool are retired."""


class ReforkRequested(Struct, frozen=True):
    """The next zygote of the current generation is to be forked from a warm worker, preferably this one."""

    warmest: int
    reason: str
    urgent: bool = False
    """Requested by the administrator: earlier failures do not delay it."""
    guarded: bool = False
    """The worker refuses if it finds something that two processes must not share."""


class StopRequested(Struct, frozen=True):
    """The service is to stop: by draining, or at once (``quick``)."""

    quick: bool = False


# --- actions -------------------------------------------------------------------------------------


class SpawnZygote(Struct, frozen=True):
    """Execute a new zygote for this generation."""

    zygote: int
    generation: int


class ForkZygote(Struct, frozen=True):
    """Request that this worker forks the next zygote of its generation from itself."""

    zygote: int
    generation: int
    worker: int
    guarded: bool = False


class AdoptZygote(Struct, frozen=True):
    """The zygote that was forked from a worker works: its generation forks from it from now on."""

    zygote: int


class GiveUpRefork(Struct, frozen=True):
    """The zygote that was forked from a worker failed; its predecessor stays in use.

    ``stacks``: it missed a deadline, so its stacks are logged before it is killed.
    """

    zygote: int
    failure: Failure
    stacks: bool = False


class DismissZygote(Struct, frozen=True):
    """Request that the zygote exits."""

    zygote: int
    followed: bool = False
    """Another zygote of its generation uses what this one has loaded."""


class KillZygote(Struct, frozen=True):
    """Send SIGKILL to the zygote.

    ``stacks``: it missed a deadline, so its stacks are logged first.
    """

    zygote: int
    reason: str
    stacks: bool = False


class ForkWorker(Struct, frozen=True):
    """Request a worker in this slot from this zygote."""

    worker: int
    slot: int
    generation: int
    zygote: int


class ServeWorker(Struct, frozen=True):
    """Let a ready worker accept connections."""

    worker: int


class RetireWorker(Struct, frozen=True):
    """Request that a worker drains and exits."""

    worker: int


class KillWorker(Struct, frozen=True):
    """Send SIGKILL to a worker.

    ``stacks``: it missed a deadline, so its stacks are logged first.
    """

    worker: int
    reason: str
    stacks: bool = False


class RecycleWorker(Struct, frozen=True):
    """Replace a worker that has reached a limit which the policy itself watches: its age."""

    worker: int
    reason: str


class DumpWorker(Struct, frozen=True):
    """Request the stacks of a worker that is about to be killed."""

    worker: int


class Resize(Struct, frozen=True):
    """Set the size of the pool; ``before`` is the size that it had."""

    size: int
    before: int
    reason: str


class Promote(Struct, frozen=True):
    """The candidate becomes the current generation."""

    generation: int


class Abandon(Struct, frozen=True):
    """The candidate has failed and never serves."""

    generation: int
    failure: Failure


class Finish(Struct, frozen=True):
    """No process is left; the master may exit."""


Action = (
    SpawnZygote
    | ForkZygote
    | AdoptZygote
    | GiveUpRefork
    | DismissZygote
    | KillZygote
    | ForkWorker
    | ServeWorker
    | RecycleWorker
    | DumpWorker
    | RetireWorker
    | KillWorker
    | Resize
    | Promote
    | Abandon
    | Finish
)

Fact = (
    GenerationRequested
    | ZygoteSpawned
    | ZygoteLoaded
    | ZygoteFailed
    | ZygoteExited
    | ZygoteStopped
    | WorkerForked
    | WorkerReady
    | WorkerFailed
    | WorkerLeaving
    | WorkerExited
    | WorkerLimitReached
    | WorkerOverdue
    | WorkerRecovered
    | WorkerStopped
    | PoolObserved
    | MemoryShort
    | ReforkRequested
    | StopRequested
)


class Plan(Struct, frozen=True):
    """The actions to perform now, in order, and when to call `decide` next (None: at the next fact)."""

    actions: tuple[Action, ...]
    wake_at: float | None
