"""Facts that reach the scoreboard, and the actions that the policy wishes for.

An action that was performed is a fact too, so `Scoreboard.apply` takes both.  Workers and zygotes are known by
numbers that are never used twice; a *slot* is the seat of a worker, a small number that is.
"""

from dataclasses import dataclass

from preforkd.core.model import Failure

# --- facts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GenerationRequested:
    """A start or a reload: bring up this generation as the candidate."""

    generation: int


@dataclass(frozen=True, slots=True)
class ZygoteSpawned:
    """The zygote's process lives; it loads the application."""

    zygote: int
    pid: int


@dataclass(frozen=True, slots=True)
class ZygoteLoaded:
    """The zygote has loaded the application and can fork."""

    zygote: int


@dataclass(frozen=True, slots=True)
class ZygoteFailed:
    """The zygote could not be started, or could not load the application; it leaves by itself."""

    zygote: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class ZygoteExited:
    """The zygote's process has ended; ``reason`` says how, for people."""

    zygote: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerForked:
    """The worker's process lives and is proven to be our child."""

    worker: int
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The worker can serve."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The worker says that it cannot start; it leaves by itself."""

    worker: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class WorkerLeaving:
    """The worker says that it leaves of its own accord, or at a signal that was not ours."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The worker's process has ended, or was never born; ``reason`` says how, for people."""

    worker: int
    reason: str
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class WorkerSpent:
    """The worker has reached a limit and is to be replaced; ``reason`` says which, for people."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerOverdue:
    """The worker's request takes longer than it may; ``reason`` says what and how long, for people."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """The worker's process was stopped (SIGSTOP), or goes on (``stopped`` is false)."""

    worker: int
    stopped: bool = True


@dataclass(frozen=True, slots=True)
class PoolObserved:
    """A look at the pool: the workers that are in the application, and what waits.

    ``held`` counts those that are there with one request for long. ``waiting`` counts connections in
    the kernel's queues that no worker has taken.
    """

    busy: frozenset[int] = frozenset()
    held: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class MemoryShort:
    """Memory is short: what is not needed now is to go."""


@dataclass(frozen=True, slots=True)
class ReforkRequested:
    """The current generation's zygote is to be forked anew from a warm worker, best from this one."""

    warmest: int
    reason: str
    urgent: bool = False
    """A person asks for it: failures of late do not delay it."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The service is to end: by draining, or quickly."""

    quick: bool = False


# --- actions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpawnZygote:
    """Execute a new zygote for this generation."""

    zygote: int
    generation: int


@dataclass(frozen=True, slots=True)
class ForkZygote:
    """Ask this worker to fork the next zygote of its generation from itself."""

    zygote: int
    generation: int
    worker: int


@dataclass(frozen=True, slots=True)
class AdoptZygote:
    """The zygote that was forked from a worker has proven itself: its generation forks from it."""

    zygote: int


@dataclass(frozen=True, slots=True)
class GiveUpRefork:
    """The zygote that was forked from a worker is of no use; the one before it goes on."""

    zygote: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class DismissZygote:
    """Ask the zygote to leave."""

    zygote: int


@dataclass(frozen=True, slots=True)
class KillZygote:
    """Send SIGKILL to the zygote."""

    zygote: int


@dataclass(frozen=True, slots=True)
class ForkWorker:
    """Ask this zygote for a worker in this slot."""

    worker: int
    slot: int
    generation: int
    zygote: int


@dataclass(frozen=True, slots=True)
class ServeWorker:
    """Tell a worker that is ready to accept connections."""

    worker: int


@dataclass(frozen=True, slots=True)
class RetireWorker:
    """Tell a worker to finish what it is doing and leave."""

    worker: int


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Send SIGKILL to a worker; ``reason`` says why, for people."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class SpendWorker:
    """The worker is to be replaced: it has reached a limit that is the policy's to watch."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class DumpWorker:
    """Have the worker write its stacks; it is killed soon."""

    worker: int


@dataclass(frozen=True, slots=True)
class Resize:
    """The pool is to have this size instead of the one before; ``reason`` says why, for people."""

    size: int
    before: int
    reason: str


@dataclass(frozen=True, slots=True)
class Promote:
    """The candidate becomes the current generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """The candidate is given up."""

    generation: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Finish:
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
    | SpendWorker
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
    | WorkerForked
    | WorkerReady
    | WorkerFailed
    | WorkerLeaving
    | WorkerExited
    | WorkerSpent
    | WorkerOverdue
    | WorkerStopped
    | PoolObserved
    | MemoryShort
    | ReforkRequested
    | StopRequested
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to ask again at the latest (`None`: only after the next event)."""

    actions: tuple[Action, ...]
    wake_at: float | None
