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
    | DismissZygote
    | KillZygote
    | ForkWorker
    | ServeWorker
    | RetireWorker
    | KillWorker
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
    | StopRequested
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to ask again at the latest (`None`: only after the next event)."""

    actions: tuple[Action, ...]
    wake_at: float | None
