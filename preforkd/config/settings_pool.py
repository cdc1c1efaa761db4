"""The sections workers, limits, timeouts, reload and memory: the processes and their lives."""

from typing import Annotated, ClassVar, Literal

from msgspec import Struct

from preforkd.config.declaration import DAY, GENERATION, GIB, HOUR, LIVE, Count, Unit, declare
from preforkd.config.kinds import HTTP_KINDS, THREADED_KINDS


class WorkersSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worker processes. A number instead of the section is its count: ``workers: 4``.

    With ``min`` and ``max`` the pool is elastic.
    """

    SHORT: ClassVar[str] = "count"

    count: Annotated[
        Count | Literal["auto"],
        declare(
            "Number of worker processes. auto: two for each CPU that preforkd may use, at least 4.",
            LIVE,
        ),
    ] = "auto"
    min: Annotated[
        int,
        declare(
            "With max: the pool begins with so many workers and never has fewer. 0: one.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    max: Annotated[
        int,
        declare(
            "The pool grows up to so many workers while connections wait and no worker is idle, and "
            "shrinks slowly when they are not needed. 0: it has a fixed size, that of count.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    spare: Annotated[
        int,
        declare(
            "Workers of an elastic pool that are kept idle beside those that are busy.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    threads: Annotated[
        int,
        declare(
            "Threads of each worker that call a WSGI application, for one that waits on others most "
            "of the time and is safe to be called from several threads.",
            GENERATION,
            ge=1,
            le=512,
            kinds=THREADED_KINDS,
        ),
    ] = 1


class TimeoutsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each step of a process's life may take."""

    start: Annotated[
        float,
        declare(
            "From the start of a generation until its workers are ready: loading the application and "
            "starting the workers. A reload that takes longer is given up, and the old generation "
            "serves on.",
            LIVE,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 60.0
    boot: Annotated[
        float,
        declare(
            "From the fork of one worker until it accepts connections.",
            LIVE,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 30.0
    drain: Annotated[
        float,
        declare(
            "How long a worker that is to leave may go on with the request that it is serving, before "
            "it is killed.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 30.0
    request: Annotated[
        float,
        declare(
            "How long one request may be with the application. Then the worker's stacks are logged with "
            "the request, the worker is killed and another takes its place. 0: for ever.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 0.0
    slow: Annotated[
        float,
        declare(
            "After how long the stacks of the worker that has a request are logged, once for each "
            "request, and nothing else happens. 0: never.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 0.0
    heartbeat: Annotated[
        float,
        declare(
            "How long a worker's loop may stand still while connections wait and no request explains "
            "it. Then the worker's stacks are logged, the worker is killed and another takes its place. "
            "A request explains it with kind wsgi and stream, unless there are workers.threads; an "
            "asyncio loop has to turn beside its requests. 0: for ever.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 30.0
    drain_notice: Annotated[
        float,
        declare(
            "Before the service stops: how long it goes on serving while http.ready already answers "
            "503, so that a load balancer sees it and sends no more. 0: it stops at once.",
            LIVE,
            ge=0.0,
            le=HOUR,
            unit=Unit.DURATION,
            kinds=HTTP_KINDS,
        ),
    ] = 0.0


class WorkerLimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of each worker. One that reaches a limit is replaced: another serves before it leaves.

    Each worker has a limit of its own, between four fifths of what is written and all of it, so that they do
    not leave together.
    """

    requests: Annotated[
        int,
        declare(
            "Requests (or connections of a stream handler). 0: any number.", LIVE, ge=0, le=10**12
        ),
    ] = 0
    age: Annotated[
        float,
        declare(
            "Time since it began to serve. 0: any.", LIVE, ge=0.0, le=365 * DAY, unit=Unit.DURATION
        ),
    ] = 0.0
    cpu: Annotated[
        float,
        declare("CPU time since its fork. 0: any.", LIVE, ge=0.0, le=365 * DAY, unit=Unit.DURATION),
    ] = 0.0
    descriptors: Annotated[
        int,
        declare(
            "Open file descriptors beside its connections. 0: nine tenths of what the system allows it.",
            LIVE,
            ge=0,
            le=1_000_000,
        ),
    ] = 0


class ReloadSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a reload goes from one generation to the next."""

    surge: Annotated[
        Count | Literal["all"],
        declare(
            "How many workers of the new generation may run beside the old ones. all: the whole new "
            "generation is ready before the first old worker leaves. A number saves memory: the "
            "generations change places in steps of this size.",
            LIVE,
        ),
    ] = "all"


class ReforkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Forking workers anew from a worker that is warm. A number instead of the section is ``after``."""

    SHORT: ClassVar[str] = "after"

    after: Annotated[
        int,
        declare(
            "Requests that a worker has answered when it forks the next zygote, so that the workers "
            "share what was loaded and built meanwhile. 0: never.",
            LIVE,
            ge=0,
            le=1_000_000_000,
            unit=Unit.REQUESTS,
        ),
    ] = 0


class MemorySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The workers' memory."""

    limit: Annotated[
        int,
        declare(
            "Private memory (USS) of one worker above which it is replaced. Pages that it shares with "
            "the others do not count. 0: no limit.",
            LIVE,
            ge=0,
            le=1024 * GIB,
            unit=Unit.SIZE,
        ),
    ] = 0
    refork: ReforkSettings = ReforkSettings()
    immortal: Annotated[
        bool,
        declare(
            "Make all that is loaded before the first fork immortal, so that the workers do not write "
            "to shared memory by merely using it (CPython 3.12 and 3.13). What is loaded by then is "
            "never freed. The requests of app.warm_up are sent twice, and the code that they run is "
            "laid side by side.",
            GENERATION,
        ),
    ] = False
