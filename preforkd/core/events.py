"""Facts that reach the scoreboard, and the actions that the policy wishes for.

An action that was performed is a fact too, so `Scoreboard.apply` takes both.  Workers and zygotes are known by
numbers that are never used twice; a *slot* is the seat of a worker, a small number that is.
"""

from msgspec import Struct

from preforkd.errors import Failure

# --- facts ---------------------------------------------------------------------------------------


class GenerationRequested(Struct, frozen=True):
    """A start or a reload: bring up this generation as the candidate."""

    generation: int


class ZygoteSpawned(Struct, frozen=True):
    """The zygote's process lives; it loads the application."""

    zygote: int
    pid: int


class ZygoteLoaded(Struct, frozen=True):
    """The zygote has loaded the application, from this directory if it says so, and can fork."""

    zygote: int
    directory: str = ""


class ZygoteFailed(Struct, frozen=True):
    """The zygote could not be started, or could not load the application; it leaves by itself."""

    zygote: int
    failure: Failure


class ZygoteExited(Struct, frozen=True):
    """The zygote's process has ended; ``reason`` says how, for people."""

    zygote: int
    reason: str


class ZygoteStopped(Struct, frozen=True):
    """The zygote's process was stopped (SIGSTOP), or goes on (``stopped`` is false)."""

    zygote: int
    stopped: bool = True


class WorkerForked(Struct, frozen=True):
    """The worker's process lives and is proven to be our child."""

    worker: int
    pid: int


class WorkerReady(Struct, frozen=True):
    """The worker can serve."""

    worker: int


class WorkerFailed(Struct, frozen=True):
    """The worker says that it cannot start; it leaves by itself."""

    worker: int
    failure: Failure


class WorkerLeaving(Struct, frozen=True):
    """The worker says that it leaves of its own accord, or at a signal that was not ours."""

    worker: int


class WorkerExited(Struct, frozen=True):
    """The worker's process has ended, or was never born; ``reason`` says how, for people."""

    worker: int
    reason: str
    out_of_memory: bool = False


class WorkerLimitReached(Struct, frozen=True):
    """The worker has reached a limit and is to be replaced; ``reason`` says which, for people.

    ``planned``: every worker reaches that one, sooner or later.
    """

    worker: int
    reason: str
    planned: bool = False


class WorkerOverdue(Struct, frozen=True):
    """The worker's request takes longer than it may; ``reason`` says what and how long, for people."""

    worker: int
    reason: str


class WorkerRecovered(Struct, frozen=True):
    """The worker's request that took too long has ended after all."""

    worker: int


class WorkerStopped(Struct, frozen=True):
    """The worker's process was stopped (SIGSTOP), or goes on (``stopped`` is false)."""

    worker: int
    stopped: bool = True


class PoolObserved(Struct, frozen=True):
    """A look at the pool: the workers that are in the application, and what waits.

    ``held`` counts those that are there with one request for long. ``waiting`` counts connections in
    the kernel's queues that no worker has taken.
    """

    busy: frozenset[int] = frozenset()
    long_busy: int = 0
    waiting: int = 0


class MemoryShort(Struct, frozen=True):
    """Memory is short: what is not needed now is to go."""


class ReforkRequested(Struct, frozen=True):
    """The current generation's zygote is to be forked anew from a warm worker, best from this one."""

    warmest: int
    reason: str
    urgent: bool = False
    """A person asks for it: failures of late do not delay it."""


class StopRequested(Struct, frozen=True):
    """The service is to end: by draining, or quickly."""

    quick: bool = False


# --- actions -------------------------------------------------------------------------------------


class SpawnZygote(Struct, frozen=True):
    """Execute a new zygote for this generation."""

    zygote: int
    generation: int


class ForkZygote(Struct, frozen=True):
    """Ask this worker to fork the next zygote of its generation from itself."""

    zygote: int
    generation: int
    worker: int


class AdoptZygote(Struct, frozen=True):
    """The zygote that was forked from a worker has proven itself: its generation forks from it."""

    zygote: int


class GiveUpRefork(Struct, frozen=True):
    """The zygote that was forked from a worker is of no use; the one before it goes on.

    ``stacks``: it is late, so what it is doing is logged before it is killed.
    """

    zygote: int
    failure: Failure
    stacks: bool = False


class DismissZygote(Struct, frozen=True):
    """Ask the zygote to leave."""

    zygote: int
    followed: bool = False
    """Another zygote of its generation goes on with what this one has loaded."""


class KillZygote(Struct, frozen=True):
    """Send SIGKILL to the zygote; ``reason`` says why, for people.

    ``stacks``: it is late, so what it is doing is logged before.
    """

    zygote: int
    reason: str
    stacks: bool = False


class ForkWorker(Struct, frozen=True):
    """Ask this zygote for a worker in this slot."""

    worker: int
    slot: int
    generation: int
    zygote: int


class ServeWorker(Struct, frozen=True):
    """Tell a worker that is ready to accept connections."""

    worker: int


class RetireWorker(Struct, frozen=True):
    """Tell a worker to finish what it is doing and leave."""

    worker: int


class KillWorker(Struct, frozen=True):
    """Send SIGKILL to a worker; ``reason`` says why, for people.

    ``stacks``: it is late, so what it is doing is logged before.
    """

    worker: int
    reason: str
    stacks: bool = False


class RecycleWorker(Struct, frozen=True):
    """The worker is to be replaced: it has reached a limit that is the policy's to watch."""

    worker: int
    reason: str


class DumpWorker(Struct, frozen=True):
    """Have the worker write its stacks; it is killed soon."""

    worker: int


class Resize(Struct, frozen=True):
    """The pool is to have this size instead of the one before; ``reason`` says why, for people."""

    size: int
    before: int
    reason: str


class Promote(Struct, frozen=True):
    """The candidate becomes the current generation."""

    generation: int


class Abandon(Struct, frozen=True):
    """The candidate is given up."""

    generation: int
    failure: Failure


class Finish(Struct, frozen=True):
    """Nothing is left; the master may end."""


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
    """What to do now, and when to ask again at the latest (`None`: only after the next event)."""

    actions: tuple[Action, ...]
    wake_at: float | None
