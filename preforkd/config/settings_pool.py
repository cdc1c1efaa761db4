"""The sections workers, limits, timeouts, reload and memory: the processes and their lives."""

from typing import Annotated, ClassVar, Literal

from msgspec import Struct

from preforkd.config.declaration import (
    DAY,
    GENERATION,
    GIB,
    HOUR,
    LIVE,
    Count,
    Requests,
    Unit,
    declare,
)
from preforkd.config.kinds import HTTP_KINDS, THREADED_KINDS


class WorkersSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worker processes. A number in place of the section sets count: ``workers: 4``.

    With ``min`` and ``max`` the pool is elastic: its size follows the demand.
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
            "With max: number of workers at the start, and the fewest that the pool shrinks to. 0: one.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    max: Annotated[
        int,
        declare(
            "Largest number of workers. The pool grows while connections wait and no worker is idle, and "
            "shrinks slowly when workers are not needed. 0: the pool has the fixed size of count.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    spare: Annotated[
        int,
        declare(
            "Number of idle workers that an elastic pool keeps in addition to the busy ones.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    threads: Annotated[
        int,
        declare(
            "Threads of each worker that call a WSGI application. More than one is for a thread-safe "
            "application that spends most of its time waiting for other services.",
            GENERATION,
            ge=1,
            le=512,
            kinds=THREADED_KINDS,
        ),
    ] = 1


class TimeoutsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Longest times of the steps in a process's life, and of a request."""

    start: Annotated[
        float,
        declare(
            "Longest time from the start of a generation until its workers are ready: loading the "
            "application and starting the workers. At the limit the start fails; a reload fails too, and "
            "the old generation keeps serving.",
            LIVE,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 60.0
    boot: Annotated[
        float,
        declare(
            "Longest time from the fork of a worker until it is ready. At the limit it is killed, and "
            "another one is started.",
            LIVE,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 30.0
    drain: Annotated[
        float,
        declare(
            "Longest time that a retiring worker may take to finish its requests. At the limit it is "
            "killed.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 30.0
    request: Annotated[
        float,
        declare(
            "Longest time the application may take for one request. At the limit the worker's stacks are "
            "logged with the request, and the worker is killed and replaced. 0: no limit.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 0.0
    slow: Annotated[
        float,
        declare(
            "Time after which the stacks of a worker that is still processing a request are logged, once "
            "for each request; the request continues. 0: never.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 0.0
    heartbeat: Annotated[
        float,
        declare(
            "Longest time that a worker's loop may stand still while connections wait and no request "
            "accounts for it. At the limit the worker's stacks are logged, and the worker is killed and "
            "replaced. A running request accounts for it with kind stream, and with kind wsgi unless "
            "workers.threads is set; the event loop of kind asgi has to turn during requests. 0: no limit.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 30.0
    drain_notice: Annotated[
        float,
        declare(
            "Time for which a service that is to stop keeps serving while http.ready already answers 503, "
            "so that a load balancer stops sending requests to it. 0: it stops at once.",
            LIVE,
            ge=0.0,
            le=HOUR,
            unit=Unit.DURATION,
            kinds=HTTP_KINDS,
        ),
    ] = 0.0


class WorkerLimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of each worker. A worker that reaches one is replaced: another one serves before it exits.

    Each worker draws its own limit between 80 % and 100 % of the value, so that the workers do not exit at
    the same time.
    """

    requests: Annotated[
        int,
        declare(
            "Requests after which a worker is replaced; connections, for a stream handler. 0: no limit.",
            LIVE,
            ge=0,
            le=10**12,
        ),
    ] = 0
    age: Annotated[
        float,
        declare(
            "Age after which a worker is replaced; 0: no limit.",
            LIVE,
            ge=0.0,
            le=365 * DAY,
            unit=Unit.DURATION,
        ),
    ] = 0.0
    cpu: Annotated[
        float,
        declare(
            "CPU time since its fork after which a worker is replaced. 0: no limit.",
            LIVE,
            ge=0.0,
            le=365 * DAY,
            unit=Unit.DURATION,
        ),
    ] = 0.0
    descriptors: Annotated[
        int,
        declare(
            "Open file descriptors, without those of its connections, above which a worker is replaced. 0: "
            "nine tenths of what the system allows a process (LimitNOFILE=).",
            LIVE,
            ge=0,
            le=1_000_000,
        ),
    ] = 0


class ReloadSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a reload replaces one generation by the next."""

    surge: Annotated[
        Count | Literal["all"],
        declare(
            "Number of workers of the new generation that may run in addition to the old ones. all: the "
            "whole new generation is ready before the first old worker drains. A number saves memory: the "
            "workers are replaced in steps of this size.",
            LIVE,
        ),
    ] = "all"


class ReforkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Forking the workers again from a warm worker. A number in place of the section sets ``after``."""

    SHORT: ClassVar[str] = "after"

    after: Annotated[
        Requests | Literal["once"],
        declare(
            "Requests after which a worker forks the next zygote, so that the workers share what was loaded "
            "and built meanwhile. 0: never. once: after 25 requests, once in a generation, and only if the "
            "worker has nothing that two processes must not share.",
            LIVE,
            unit=Unit.REQUESTS,
        ),
    ] = 0


class MemorySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Memory of the workers."""

    limit: Annotated[
        int,
        declare(
            "Private memory (USS) of a worker above which it is replaced. Pages that it shares with other "
            "processes do not count. 0: no limit.",
            LIVE,
            ge=0,
            le=1024 * GIB,
            unit=Unit.SIZE,
        ),
    ] = 0
    refork: ReforkSettings = ReforkSettings()
    immortal: Annotated[
        bool | Literal["auto"],
        declare(
            "Make all objects that exist before the first fork immortal, so that workers do not write to "
            "shared pages merely by using them (CPython 3.12 to 3.15). These objects are never freed. The "
            "requests of app.warm_up are sent twice, and the code that they run is placed contiguously in "
            "memory. auto: where the interpreter allows it; true: or do not start.",
            GENERATION,
        ),
    ] = False
