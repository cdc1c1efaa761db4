"""What the three processes say to each other: msgspec structs in tagged unions, one a direction.

The master decodes what its children say with `FROM_ZYGOTE` and `FROM_WORKER`: an unknown or
malformed message is gossip, to be logged and ignored.  File descriptors travel beside a message
(see `preforkd.ipc.channel`).
"""

from msgspec import Struct, field

from preforkd.errors import Failure


class Load(Struct, frozen=True, tag="load"):
    """Master to zygote: load the application.

    Descriptors: the listeners, in the order of ``listeners``, and the ends of the handoff queue.

    ``settings`` is a `preforkd.config.settings.Settings` in MessagePack: ipc knows no settings.
    """

    generation: int
    settings: bytes
    listeners: tuple[str, ...]
    handoff: bool = False
    """The last two descriptors are the ends of the handoff queue between the workers."""
    check: bool = True
    """Nothing that it loads has served before: the request of the settings (app.check) is tried."""


class Fork(Struct, frozen=True, tag="fork"):
    """Master to zygote: fork a worker.

    Descriptors: its channel, its slot's memory, and if the master reads its standard output and error,
    those two.
    """

    worker: int
    slot: int


class Dismiss(Struct, frozen=True, tag="dismiss"):
    """Master to zygote: leave."""

    followed: bool = False
    """Another zygote goes on with what this one has loaded: its exit handlers must not take it away."""


class Loaded(Struct, frozen=True, tag="loaded"):
    """Zygote to master: the application is loaded; it took this many seconds."""

    seconds: float
    directory: str = ""
    """Where it was loaded, without symbolic links."""


class LoadFailed(Struct, frozen=True, tag="load-failed"):
    """Zygote to master: the application could not be loaded; the zygote leaves."""

    failure: Failure = field(name="problem")


class Forked(Struct, frozen=True, tag="forked"):
    """Zygote to master: this worker lives, and has been reparented to the master."""

    worker: int
    pid: int


class ForkFailed(Struct, frozen=True, tag="fork-failed"):
    """Zygote to master: the kernel refused the fork."""

    worker: int
    reason: str


class Ready(Struct, frozen=True, tag="ready"):
    """Worker to master: I can serve, as soon as I am told to."""


class Failed(Struct, frozen=True, tag="failed"):
    """Worker to master: I cannot start, and leave."""

    failure: Failure = field(name="problem")


class Leaving(Struct, frozen=True, tag="leaving"):
    """Worker to master: I leave of my own accord."""

    reason: str


class ActivityResumed(Struct, frozen=True, tag="activity-resumed"):
    """Worker to master: something happens again (asked for by the slot's bell)."""


class RequestLimitReached(Struct, frozen=True, tag="request-limit-reached"):
    """Worker to master: I have answered as many requests as I was to."""


class Reforked(Struct, frozen=True, tag="reforked"):
    """Worker to master: this zygote was forked from me, and has been reparented to the master."""

    zygote: int
    pid: int


class ReforkFailed(Struct, frozen=True, tag="refork-failed"):
    """Worker to master: no zygote was forked."""

    zygote: int
    failure: Failure = field(name="problem")


class Serve(Struct, frozen=True, tag="serve"):
    """Master to worker: accept connections.

    After so many ``requests`` (0: any number) the worker says so, and serves on until it is told.
    """

    requests: int = 0


class Retire(Struct, frozen=True, tag="retire"):
    """Master to worker: accept no more, finish, leave.

    Idle keep-alive connections may stay for ``linger`` seconds, so that a client's next request
    meets an answer with ``Connection: close`` instead of a reset.
    """

    linger: float = 0.0
    timeout: float | None = None
    """Seconds until a worker that has not left is killed; None: as its settings say."""


class DrainNotice(Struct, frozen=True, tag="drain-notice"):
    """Master to worker: the service stops soon; serve on, but no longer say that you are ready."""


class Trim(Struct, frozen=True, tag="trim"):
    """Master to worker: memory is short; give back what is not needed, when you are idle."""


class ReforkRequest(Struct, frozen=True, tag="refork"):
    """Master to worker: fork the next zygote from yourself.

    Descriptors: that zygote's channel, and the memory for its stacks.
    """

    zygote: int


class Heartbeat(Struct, frozen=True, tag="heartbeat"):
    """Master to worker: look at the sockets anew, and show in the slot that the loop turns (a beat).

    Connections wait, and the worker that was woken for them may be unable to come.
    """


class RequestTimeout(Struct, frozen=True, tag="request-timeout"):
    """Master to worker: the request that began then takes too long, and you are killed in a moment.

    ``since`` is what the slot says, monotonic nanoseconds: by now it may be another request.
    """

    since: int


ToZygote = Load | Fork | Dismiss
FromZygote = Loaded | LoadFailed | Forked | ForkFailed
ToWorker = Serve | Retire | DrainNotice | Trim | ReforkRequest | Heartbeat | RequestTimeout
FromWorker = (
    Ready | Failed | Leaving | ActivityResumed | RequestLimitReached | Reforked | ReforkFailed
)
