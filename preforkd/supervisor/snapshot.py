"""The service as the control socket shows it: the scoreboard, and the contents of the slots."""

import os
from collections.abc import Callable, Iterator

import msgspec

from preforkd.control.records import (
    GenerationStatus,
    ListenerStatus,
    MemoryStatus,
    ProcessMemory,
    ReloadStatus,
    ServiceStatus,
    WorkerStatus,
)
from preforkd.core import status
from preforkd.core.lifecycle import State
from preforkd.core.model import Limits
from preforkd.core.pool_view import size_of
from preforkd.core.rows import GenerationRow, WorkerRow
from preforkd.core.scoreboard import Scoreboard
from preforkd.linux import clock
from preforkd.linux.memory import Usage
from preforkd.supervisor.listeners import Served
from preforkd.supervisor.memory_sampler import MemorySampler, Reading
from preforkd.supervisor.pool import Pool


class SnapshotSource(msgspec.Struct, frozen=True):
    """What the master knows besides the scoreboard; seconds."""

    version: str
    pid: int
    state: State
    status: Callable[[int], str]
    """Returns the STATUS line for this number of busy workers."""
    uptime: float
    configuration: str | None
    last_reload: ReloadStatus | None
    served: tuple[Served, ...]
    notes: list[str]
    """Problems besides those of the scoreboard."""
    by_hand: bool


def service_status(
    service: SnapshotSource, board: Scoreboard, limits: Limits, pool: Pool, now: float
) -> ServiceStatus:
    """Return the status; ``now`` is monotonic seconds."""
    # The slots are read once: workers change them at any moment.
    workers = [_worker(row, pool, now) for row in _by_slot(board)]
    busy = sum(worker.busy_seconds is not None for worker in workers)
    current = board.current
    return ServiceStatus(
        version=service.version,
        pid=service.pid,
        state=service.state.value,
        status=service.status(busy),
        generation=current.generation if current else None,
        ready=board.serving(),
        target=size_of(board, limits),
        least=limits.floor,
        most=limits.maximum,
        by_hand=service.by_hand,
        waiting=board.demand.sample.waiting,
        busy=busy,
        uptime_seconds=service.uptime,
        configuration=service.configuration,
        problems=status.problems(board, limits, now, clock.time_of_day_at) + service.notes,
        workers=workers,
        generations=[_generation(row, board) for row in board.generations.values()],
        listeners=[
            ListenerStatus(name=served.name, address=served.address, origin=served.origin)
            for served in service.served
        ],
        last_reload=service.last_reload,
    )


def _by_slot(board: Scoreboard) -> Iterator[WorkerRow]:
    return iter(sorted(board.workers.values(), key=lambda row: (row.slot, row.worker)))


def _worker(row: WorkerRow, pool: Pool, now: float) -> WorkerStatus:
    handle = pool.worker(row.worker)
    reading = handle.slot_memory.read(now) if handle else None
    busy_since = reading.busy_since if reading else None
    return WorkerStatus(
        slot=row.slot,
        pid=row.pid,
        generation=row.generation,
        state=row.state.value,
        serving=row.serving,
        busy_seconds=None if busy_since is None else now - busy_since,
        requests=reading.requests if reading else 0,
        connections=reading.connections if reading else 0,
        accepted=reading.accepted if reading else 0,
        age_seconds=now - row.born,
        busy_with=handle.slot_memory.request_line() if handle and busy_since is not None else "",
        spent=row.limit_reached,
    )


def _generation(row: GenerationRow, board: Scoreboard) -> GenerationStatus:
    zygotes = [zygote for zygote in board.zygotes.values() if zygote.generation == row.generation]
    zygote = zygotes[-1] if zygotes else None
    return GenerationStatus(
        generation=row.generation,
        role=row.role.value,
        zygote_pid=zygote.pid if zygote else None,
        zygote_state=zygote.state.value if zygote else None,
        workers=sum(1 for _ in board.workers_of(row.generation)),
    )


# --- memory --------------------------------------------------------------------------------------


class _Process(msgspec.Struct, frozen=True):
    role: str
    pid: int
    slot: int | None = None
    generation: int | None = None


def read_memory_status(
    board: Scoreboard, memory_sampler: MemorySampler, callback: Callable[[MemoryStatus], None]
) -> None:
    """Read the memory of all processes for ``callback``; one that exits meanwhile is left out."""
    processes = list(_processes(board))

    def done(readings: dict[int, Reading]) -> None:
        callback(_memory_status(processes, readings, memory_sampler))

    memory_sampler.read([process.pid for process in processes], done)


def _memory_status(
    processes: list["_Process"], readings: dict[int, Reading], memory_sampler: MemorySampler
) -> MemoryStatus:
    known = [(process, readings[process.pid]) for process in processes]
    found = [(process, reading) for process, reading in known if isinstance(reading, Usage)]
    return MemoryStatus(
        processes=[_memory(process, usage, memory_sampler) for process, usage in found],
        pss=sum(usage.pss for _, usage in found),
        unrelated=_unrelated([usage for process, usage in found if process.role != "zygote"]),
        problems=[
            f"{process.role} {process.pid}: {reading.strerror}"
            for process, reading in known
            if isinstance(reading, OSError) and not isinstance(reading, ProcessLookupError)
        ],
    )


def _processes(board: Scoreboard) -> Iterator[_Process]:
    for worker in _by_slot(board):
        if worker.pid is not None:
            yield _Process("worker", worker.pid, worker.slot, worker.generation)
    for zygote in board.zygotes.values():
        if zygote.pid is not None:
            yield _Process("zygote", zygote.pid, None, zygote.generation)
    yield _Process("master", os.getpid())


def _memory(process: _Process, usage: Usage, memory_sampler: MemorySampler) -> ProcessMemory:
    return ProcessMemory(
        role=process.role,
        slot=process.slot,
        generation=process.generation,
        pid=process.pid,
        rss=usage.rss,
        pss=usage.pss,
        uss=usage.private,
        shared=usage.shared,
        growth=memory_sampler.growth(process.pid, usage),
    )


def _unrelated(usages: list[Usage]) -> int | None:
    # Without sharing, anonymous memory would be private to each; files are shared anyway.
    total = 0
    for usage in usages:
        if usage.pss_files is None:
            return None
        total += usage.anonymous + usage.pss_files
    return total
