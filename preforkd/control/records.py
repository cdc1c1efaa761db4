"""The records that the control socket returns. Times are in seconds."""

import msgspec


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker; ``busy_seconds`` is None while it is idle."""

    slot: int
    pid: int | None
    generation: int
    state: str
    serving: bool
    busy_seconds: float | None
    requests: int
    connections: int
    accepted: int
    age_seconds: float
    busy_with: str
    """Its request line; empty while it is idle, or if it has written none."""
    spent: str
    """The limit that it has reached; empty: none."""


class GenerationStatus(msgspec.Struct, frozen=True):
    """One generation and its zygote."""

    generation: int
    role: str
    zygote_pid: int | None
    zygote_state: str | None
    workers: int


class ListenerStatus(msgspec.Struct, frozen=True):
    """One listener; ``origin`` is ``systemd`` or ``bound``."""

    name: str
    address: str
    origin: str


class ReloadStatus(msgspec.Struct, frozen=True):
    """How the last reload ended; ``blame`` is None when it succeeded."""

    generation: int | None
    ok: bool
    message: str
    blame: str | None
    detail: str
    hint: str
    at_unix: float


class ProcessMemory(msgspec.Struct, frozen=True):
    """One process's memory in bytes; ``role`` is worker, zygote or master.

    ``uss`` is what it has to itself, ``pss`` adds its share of what several have, ``shared`` is all
    that others have as well. ``growth`` is what it has to itself more than when it was ready.
    """

    role: str
    slot: int | None
    generation: int | None
    pid: int
    rss: int
    pss: int
    uss: int
    shared: int
    growth: int | None


class MemoryStatus(msgspec.Struct, frozen=True):
    """The memory of all processes, in bytes.

    ``unrelated`` estimates what the workers would take if each had loaded the application by itself;
    None if the kernel does not provide it. ``problems`` names what could not be read.
    """

    processes: list[ProcessMemory]
    pss: int
    unrelated: int | None
    problems: list[str]


class ServiceStatus(msgspec.Struct, frozen=True):
    """The whole service."""

    version: str
    pid: int
    state: str
    status: str
    generation: int | None
    ready: int
    target: int
    least: int
    most: int
    """The bounds of ``target``; the same for a pool of a fixed size."""
    by_hand: bool
    """The size was asked for by hand."""
    busy: int
    waiting: int
    """Connections that wait for a worker, in the last sample."""
    uptime_seconds: float
    configuration: str | None
    problems: list[str]
    workers: list[WorkerStatus]
    generations: list[GenerationStatus]
    listeners: list[ListenerStatus]
    last_reload: ReloadStatus | None
    memory: MemoryStatus | None = None
    """Only when it was asked for."""


class ReloadAnswer(msgspec.Struct, frozen=True):
    """How a reload ended.

    ``live`` names settings that were changed without new workers, ``restart`` those that only a
    restart changes. ``blame`` is configuration, application, system, internal or stopping.
    """

    ok: bool
    generation: int | None
    message: str
    blame: str | None
    detail: str
    hint: str
    live: list[str]
    restart: list[str]
