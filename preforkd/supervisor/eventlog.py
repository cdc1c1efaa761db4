"""Log one line for each fact and action that an administrator looks for.

Each line about a worker has its slot, pid and generation, as text and as journal fields. Planned events of
workers have no catalog entry, because `journalctl -x` would print its explanation for each of them.
"""

import logging
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from preforkd.core import events as ev
from preforkd.core.model import ALIVE, BOOTING, Role, WorkerState
from preforkd.core.rows import WorkerRow, ZygoteRow
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Failure
from preforkd.logs import catalog
from preforkd.logs.catalog import Entry

logger = logging.getLogger("preforkd.master")


def worker_fields(row: WorkerRow) -> dict[str, Any]:
    """Return the journal fields of a worker."""
    fields: dict[str, Any] = {"PREFORKD_WORKER": row.slot, "PREFORKD_GENERATION": row.generation}
    if row.pid is not None:
        fields["OBJECT_PID"] = row.pid
    return fields


def worker_name(row: WorkerRow) -> str:
    """Return the name of a worker in the log: slot, pid, generation."""
    pid = f"pid {row.pid}, " if row.pid is not None else ""
    return f"worker {row.slot} ({pid}generation {row.generation})"


def zygote_name(row: ZygoteRow) -> str:
    """Return the name of a zygote in the log: pid, generation."""
    pid = f"pid {row.pid}, " if row.pid is not None else ""
    return f"zygote ({pid}generation {row.generation})"


def _log_worker(row: WorkerRow, level: int, text: str, entry: Entry | None = None) -> None:
    _log(level, f"{worker_name(row)} {text}", entry, worker_fields(row))


def _log(level: int, text: str, entry: Entry | None, fields: dict[str, Any]) -> None:
    # stacklevel: CODE_FUNC is the function that called the caller of this one.
    logger.log(level, "%s", text, extra={"journal": {**_message_id(entry), **fields}}, stacklevel=3)


def _message_id(entry: Entry | None) -> dict[str, Any]:
    return {"MESSAGE_ID": entry.id} if entry is not None else {}


def log_entry(entry: Entry, level: int, text: str, **fields: Any) -> None:
    """Log a message with its catalog entry; ``fields`` are additional journal fields."""
    _log(level, text, entry, fields)


_ORIGINS = {
    "systemd": catalog.LISTENER_SYSTEMD,
    "bound": catalog.LISTENER_BOUND,
    "stored": catalog.LISTENER_STORED,
}


def log_listener(name: str, address: str, origin: str) -> None:
    """Log that a socket is served; ``origin`` is a key of `_ORIGINS`."""
    fields = {"PREFORKD_LISTENER": name, "PREFORKD_ADDRESS": address, "PREFORKD_ORIGIN": origin}
    text = f"listening on {address} ({name}, {origin})"
    log_entry(_ORIGINS[origin], logging.INFO, text, **fields)


def log_promotion(generation: int, board: Scoreboard) -> None:
    """Log that a generation is serving, and which ones drain; ``board`` has the promotion applied."""
    old = [str(row.generation) for row in board.generations.values() if row.role is Role.OLD]
    text = f"generation {generation} is serving"
    if old:
        text += f"; draining generation {', '.join(old)}"
    log_entry(catalog.SERVES, logging.INFO, text, PREFORKD_GENERATION=generation)


def _log_zygote(row: ZygoteRow, level: int, text: str, entry: Entry | None = None) -> None:
    _log(level, f"{zygote_name(row)} {text}", entry, _zygote_fields(row))


def _zygote_fields(row: ZygoteRow) -> dict[str, Any]:
    pid = {"OBJECT_PID": row.pid} if row.pid is not None else {}
    return {"PREFORKD_GENERATION": row.generation, **pid}


def log_event(event: ev.Fact | ev.Action, board: Scoreboard) -> None:
    """Log an event; ``board`` is the scoreboard before it is applied."""
    if (log := _LOGGERS.get(type(event))) is not None:
        log(event, board)


def log_failure(
    what: str,
    failure: Failure,
    level: int = logging.ERROR,
    entry: Entry | None = None,
    **fields: Any,
) -> None:
    """Log a failure with its evidence and its hint; ``what`` failed."""
    _log(level, failure.report(what), entry, fields)


def log_stacks(row: WorkerRow, what: str, request: str, stacks: str, entry: Entry) -> None:
    """Log ``what`` about a worker, with its stacks; ``request`` is the line of its request or empty."""
    fields = worker_fields(row)
    if request:
        fields["PREFORKD_REQUEST"] = request
    text = _with_stacks(f"{worker_name(row)} {what}", stacks)
    _log(logging.WARNING, text, entry, fields)


def _with_stacks(what: str, stacks: str) -> str:
    return f"{what}; stacks:\n{stacks.rstrip() or '(none written)'}"


def log_late_worker(row: WorkerRow, request: str, stacks: str) -> None:
    """Log the stacks of a worker that is killed after a timeout; ``request`` is empty for none."""
    entry = catalog.DRAIN_TIMEOUT if row.was_ready else catalog.WORKER_HUNG
    busy = f", busy with {request}" if request else ""
    log_stacks(row, f"was killed after its timeout{busy}", request, stacks, entry)


def log_late_zygote(row: ZygoteRow, stacks: str) -> None:
    """Log the stacks of a zygote that is killed after a timeout."""
    text = _with_stacks(f"{zygote_name(row)} was killed after its timeout", stacks)
    _log(logging.WARNING, text, catalog.ZYGOTE_KILLED, _zygote_fields(row))


def _worker_limit_reached(
    event: ev.WorkerLimitReached | ev.RecycleWorker, board: Scoreboard
) -> None:
    row = board.workers.get(event.worker)
    if row is not None and not row.limit_reached and row.state is WorkerState.READY:
        planned = isinstance(event, ev.RecycleWorker) or event.planned
        entry = None if planned else catalog.WORKER_SPENT
        _log_worker(row, logging.INFO, f"will be replaced: {event.reason}", entry)


def _worker_stopped(event: ev.WorkerStopped, board: Scoreboard) -> None:
    row = board.workers.get(event.worker)
    if row is None or (row.stopped_at is not None) == event.stopped:
        return
    if event.stopped:
        text = "was stopped by a signal (SIGSTOP?); it will be killed unless it continues"
        _log_worker(row, logging.WARNING, text, catalog.WORKER_STOPPED)
    else:
        _log_worker(row, logging.INFO, "continues after a stop")


def _worker_recovered(event: ev.WorkerRecovered, board: Scoreboard) -> None:
    row = board.workers.get(event.worker)
    if row is not None and row.overdue and row.state is not WorkerState.KILLED:
        _log_worker(row, logging.INFO, "is no longer overdue; not killing it")


def _resize(event: ev.Resize, _board: Scoreboard) -> None:
    if event.size == event.before:
        return
    how = "grows" if event.size > event.before else "shrinks"
    text = f"the pool {how} from {event.before} to {event.size} workers: {event.reason}"
    log_entry(catalog.RESIZED, logging.INFO, text, PREFORKD_SIZE=event.size)


def _fork_zygote(event: ev.ForkZygote, board: Scoreboard) -> None:
    if row := board.workers.get(event.worker):
        generation = board.generations.get(row.generation)
        why = f" ({generation.refork.reason})" if generation else ""
        _log_worker(row, logging.INFO, f"forks the next zygote{why}", catalog.REFORK)


def _adopt_zygote(event: ev.AdoptZygote, board: Scoreboard) -> None:
    if row := board.zygotes.get(event.zygote):
        text = "has started its first worker; replacing the workers of the previous zygote"
        _log_zygote(row, logging.INFO, text, catalog.REFORK)


def _give_up_refork(event: ev.GiveUpRefork, board: Scoreboard) -> None:
    row = board.zygotes.get(event.zygote)
    if row is not None:
        what = f"refork of generation {row.generation} failed; keeping the previous zygote"
        fields = {"PREFORKD_GENERATION": row.generation}
        log_failure(what, event.failure, logging.WARNING, catalog.REFORK_FAILED, **fields)


def _worker_ready(event: ev.WorkerReady, board: Scoreboard) -> None:
    row = board.workers.get(event.worker)
    if row and row.state in BOOTING:
        _log_worker(row, logging.INFO, "is ready")


def _worker_forked(event: ev.WorkerForked, board: Scoreboard) -> None:
    if row := board.workers.get(event.worker):
        row_pid = row.pid or event.pid
        logger.debug("worker %d started with pid %d", row.slot, row_pid)


def _worker_failed(event: ev.WorkerFailed, board: Scoreboard) -> None:
    row = board.workers.get(event.worker)
    if row and row.state in BOOTING:
        what = f"{worker_name(row)} cannot start"
        entry, failure = catalog.WORKER_CANNOT_START, event.failure
        generation = board.generations.get(row.generation)
        if generation and generation.role is Role.CANDIDATE and generation.failure == failure:
            failure = replace(failure, detail="", hint="")  # logged for another worker
        log_failure(what, failure, logging.ERROR, entry, **worker_fields(row))


def _worker_leaving(event: ev.WorkerLeaving, board: Scoreboard) -> None:
    row = board.workers.get(event.worker)
    if row and row.state in ALIVE:
        _log_worker(
            row,
            logging.INFO,
            "is draining without an order of the master (SIGTERM, or exit by the application)",
        )


def _retire_worker(event: ev.RetireWorker, board: Scoreboard) -> None:
    if row := board.workers.get(event.worker):
        _log_worker(row, logging.DEBUG, "is draining")


def _kill_worker(event: ev.KillWorker, board: Scoreboard) -> None:
    if row := board.workers.get(event.worker):
        level = logging.WARNING
        if board.stopping and (board.stopping.quick or row.state in BOOTING):
            level = logging.INFO
        _log_worker(row, level, f"is killed: {event.reason}", _why_killed(row, board))


def _why_killed(row: WorkerRow, board: Scoreboard) -> Entry:
    if row.dumped_at is not None:
        return catalog.REQUEST_OVERDUE
    if row.stopped_at is not None:
        return catalog.WORKER_STOPPED
    if row.state is WorkerState.RETIRING:
        return catalog.DRAIN_TIMEOUT
    generation = board.generations.get(row.generation)
    wanted = generation is not None and generation.role in {Role.CURRENT, Role.CANDIDATE}
    return catalog.WORKER_HUNG if wanted and not board.stopping else catalog.WORKER_KILLED


def _worker_exited(event: ev.WorkerExited, board: Scoreboard) -> None:
    row = board.workers.get(event.worker)
    if row is None:
        return
    expected = row.state not in ALIVE
    level = logging.INFO if expected else logging.WARNING
    when = "" if row.was_ready or row.end_expected else " before it was ready"
    entry = None if expected else catalog.WORKER_ENDED
    if event.out_of_memory:
        entry = catalog.OUT_OF_MEMORY
    text = f"exited{when}: {event.reason}"
    if not expected and row.was_ready and _is_current(row.generation, board):
        text += "; starting a replacement"
    _log_worker(row, level, text, entry)


def _is_current(generation: int, board: Scoreboard) -> bool:
    row = board.generations.get(generation)
    return row is not None and row.role is Role.CURRENT and not board.stopping


def _zygote_spawned(event: ev.ZygoteSpawned, board: Scoreboard) -> None:
    if row := board.zygotes.get(event.zygote):
        number = row.generation
        doing = "started" if row.parent is None else "was forked from a worker"
        logger.info(
            "zygote (pid %d, generation %d) %s",
            event.pid,
            number,
            doing,
            extra={"journal": {"PREFORKD_GENERATION": number, "OBJECT_PID": event.pid}},
        )


def _zygote_exited(event: ev.ZygoteExited, board: Scoreboard) -> None:
    row = board.zygotes.get(event.zygote)
    if row is None:
        return
    if row.state in {"loading", "ready"}:
        text = f"exited: {event.reason}"
        if _is_current(row.generation, board) and row.parent is None:
            text += "; starting another zygote"
        _log_zygote(row, logging.WARNING, text, catalog.ZYGOTE_LOST)
    else:
        _log_zygote(row, logging.DEBUG, f"exited: {event.reason}")


def _zygote_loaded(event: ev.ZygoteLoaded, board: Scoreboard) -> None:
    if row := board.zygotes.get(event.zygote):
        done = "loaded the application" if row.parent is None else "is ready to fork"
        if not event.preload:
            cost = "takes its own time and memory to load the application"
            done = f"is ready; app.preload is false: each worker {cost}"
        done += f" from {event.directory}" if event.directory else ""
        _log_zygote(row, logging.INFO, done)


def _zygote_failed(event: ev.ZygoteFailed, board: Scoreboard) -> None:
    row = board.zygotes.get(event.zygote)
    if row is not None and row.parent is None:  # else `GiveUpRefork` has the reason
        generation = board.generations.get(row.generation)
        if generation is not None and generation.role == "current":
            log_failure(
                f"generation {row.generation}: cannot load the application again; workers keep serving",
                event.failure,
            )


def _kill_zygote(event: ev.KillZygote, board: Scoreboard) -> None:
    if row := board.zygotes.get(event.zygote):
        level = logging.INFO if board.stopping else logging.WARNING
        _log_zygote(row, level, f"is killed: {event.reason}", catalog.ZYGOTE_KILLED)


def _zygote_stopped(event: ev.ZygoteStopped, board: Scoreboard) -> None:
    row = board.zygotes.get(event.zygote)
    if row is None or (row.stopped_at is not None) == event.stopped:
        return
    if event.stopped:
        text = "was stopped by a signal (SIGSTOP?); it will be killed unless it continues"
        _log_zygote(row, logging.WARNING, text, catalog.ZYGOTE_KILLED)
    else:
        _log_zygote(row, logging.INFO, "continues after a stop")


_LOGGERS: dict[type, Callable[[Any, Scoreboard], None]] = {
    ev.WorkerForked: _worker_forked,
    ev.WorkerReady: _worker_ready,
    ev.WorkerFailed: _worker_failed,
    ev.WorkerLeaving: _worker_leaving,
    ev.RetireWorker: _retire_worker,
    ev.KillWorker: _kill_worker,
    ev.WorkerExited: _worker_exited,
    ev.WorkerLimitReached: _worker_limit_reached,
    ev.RecycleWorker: _worker_limit_reached,
    ev.WorkerRecovered: _worker_recovered,
    ev.WorkerStopped: _worker_stopped,
    ev.Resize: _resize,
    ev.ForkZygote: _fork_zygote,
    ev.AdoptZygote: _adopt_zygote,
    ev.GiveUpRefork: _give_up_refork,
    ev.ZygoteSpawned: _zygote_spawned,
    ev.ZygoteLoaded: _zygote_loaded,
    ev.ZygoteFailed: _zygote_failed,
    ev.ZygoteExited: _zygote_exited,
    ev.ZygoteStopped: _zygote_stopped,
    ev.KillZygote: _kill_zygote,
}
