"""The messages between the master, a zygote and a worker: msgspec structs in a tagged union for each direction.

The receiver decodes with the union of its direction (`ToZygote`, `FromZygote`, `ToWorker`, `FromWorker`), so
that an unknown tag, a wrong type or a missing field is a decoding error.  The master logs such a message and
ignores it.  File descriptors accompany a message as ancillary data; see `preforkd.ipc.channel`.
"""

from msgspec import Struct, field

from preforkd.errors import Failure


class Load(Struct, frozen=True, tag="load"):
    """Master to zygote: load the application.

    Descriptors: the listeners, in the order of ``listeners``, then the two ends of the handoff queue.

    ``settings`` is a `preforkd.config.settings.Settings` in MessagePack: ipc does not depend on settings.
    """

    generation: int
    settings: bytes
    listeners: tuple[str, ...]
    handoff: bool = False
    """The last two descriptors are the sending and the receiving end of the handoff queue."""
    check: bool = True
    """Send the trial request (app.check). False: the generation has served before."""
    load_only: bool = False
    """For ``preforkd check``, no worker will be forked; with app.preload: false a trial worker loads it."""


class Fork(Struct, frozen=True, tag="fork"):
    """Master to zygote: fork a worker.

    Descriptors: its channel, its slot's memory, and, if the master reads its standard output and error,
    the writing ends of these two pipes.
    """

    worker: int
    slot: int


class Dismiss(Struct, frozen=True, tag="dismiss"):
    """Master to zygote: exit."""

    followed: bool = False
    """A zygote forked from a worker continues with what was loaded: exit handlers must not run here."""


class Loaded(Struct, frozen=True, tag="loaded"):
    """Zygote to master: the application is loaded; ``seconds`` is the time that it took."""

    seconds: float
    directory: str = ""
    """The application's directory, without symbolic links."""


class LoadFailed(Struct, frozen=True, tag="load-failed"):
    """Zygote to master: the application could not be loaded; the zygote exits."""

    failure: Failure = field(name="problem")


class Forked(Struct, frozen=True, tag="forked"):
    """Zygote to master: the worker was forked and has become the master's child."""

    worker: int
    pid: int


class ForkFailed(Struct, frozen=True, tag="fork-failed"):
    """Zygote to master: the kernel refused the fork."""

    worker: int
    reason: str


class Ready(Struct, frozen=True, tag="ready"):
    """Worker to master: the worker has started; it accepts connections after `Serve`."""


class Failed(Struct, frozen=True, tag="failed"):
    """Worker to master: the worker could not start; it exits."""

    failure: Failure = field(name="problem")


class Leaving(Struct, frozen=True, tag="leaving"):
    """Worker to master: the worker exits without having been retired."""

    reason: str


class ActivityResumed(Struct, frozen=True, tag="activity-resumed"):
    """Worker to master: the worker has become busy, and its slot requested a wake-up."""


class RequestLimitReached(Struct, frozen=True, tag="request-limit-reached"):
    """Worker to master: the worker has answered the number of requests that `Serve` set."""


class Reforked(Struct, frozen=True, tag="reforked"):
    """Worker to master: a zygote was forked from the worker and has become the master's child."""

    zygote: int
    pid: int


class ReforkFailed(Struct, frozen=True, tag="refork-failed"):
    """Worker to master: no zygote was forked."""

    zygote: int
    failure: Failure = field(name="problem")


class Serve(Struct, frozen=True, tag="serve"):
    """Master to worker: accept connections.

    After ``requests`` (0: no limit) the worker sends `RequestLimitReached` and continues until it is retired.
    """

    requests: int = 0


class Retire(Struct, frozen=True, tag="retire"):
    """Master to worker: drain and exit.

    Idle keep-alive connections stay open for ``linger`` seconds, so that a client's next request is
    answered with ``Connection: close`` instead of a reset.
    """

    linger: float = 0.0
    timeout: float | None = None
    """Seconds after which the master kills the worker; None: timeouts.drain."""


class DrainNotice(Struct, frozen=True, tag="drain-notice"):
    """Master to worker: the service stops soon; serve on, but fail the readiness probe (http.ready)."""


class Trim(Struct, frozen=True, tag="trim"):
    """Master to worker: memory is short; collect garbage and free memory when idle."""


class ReforkRequest(Struct, frozen=True, tag="refork"):
    """Master to worker: fork the next zygote from the worker's own process.

    Descriptors: the zygote's channel, and the memory for its stacks. ``guarded``: not if the worker has
    something that two processes must not share.
    """

    zygote: int
    guarded: bool = False


class Heartbeat(Struct, frozen=True, tag="heartbeat"):
    """Master to worker: count a heartbeat in the slot, and check all sockets for events again.

    The second part is for connections that wait while the worker that the kernel woke for them is stopped
    or hangs.
    """


class RequestTimeout(Struct, frozen=True, tag="request-timeout"):
    """Master to worker: the request exceeds timeouts.request, and the worker will be killed soon.

    ``since`` is the value of the slot in monotonic nanoseconds: if it has changed, another request runs.
    """

    since: int


ToZygote = Load | Fork | Dismiss
FromZygote = Loaded | LoadFailed | Forked | ForkFailed
ToWorker = Serve | Retire | DrainNotice | Trim | ReforkRequest | Heartbeat | RequestTimeout
FromWorker = (
    Ready | Failed | Leaving | ActivityResumed | RequestLimitReached | Reforked | ReforkFailed
)
