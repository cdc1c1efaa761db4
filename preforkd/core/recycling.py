"""Rules that replace the processes of a generation: workers at a limit, and the zygote by a refork.

A worker that has reached a limit serves until its replacement does, so that capacity is never lost; while starts
fail, no worker retires. A zygote that was forked from a worker is on trial until a first worker of its own is
ready; until then its predecessor stays. Then all workers of earlier zygotes are replaced.
"""

from collections.abc import Iterator

from preforkd.core import events as ev
from preforkd.core.model import BOOTING, USABLE, WorkerState, ZygoteState
from preforkd.core.pool_view import PoolView, wanted_generations
from preforkd.core.rows import GenerationRow, WorkerRow, ZygoteRow
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Blame, Failure

_SHARE = 8
"""One worker in `_SHARE` is replaced at a time."""
_GOLDEN = 0.6180339887498949


def spread(worker: int) -> float:
    """Return the share (0.8 to 1) of a limit that applies to this worker.

    Multiples of the golden ratio are evenly spread, so that workers of the same age do not reach a limit at the
    same time, and no random source is needed.
    """
    return 0.8 + 0.2 * ((worker * _GOLDEN) % 1.0)


def to_recycle(board: Scoreboard, generation: GenerationRow) -> list[WorkerRow]:
    """Return the serving workers that will be replaced, those of the oldest zygotes first."""
    newest = board.usable_zygote(generation.generation)
    reforked = newest is not None and newest.parent is not None
    rows = [
        row
        for row in board.workers_of(generation.generation)
        if row.serving
        and row.state is WorkerState.READY
        and (row.limit_reached or (reforked and newest is not None and row.zygote < newest.zygote))
    ]
    return sorted(rows, key=lambda row: (row.zygote, row.worker))


def replacing(view: PoolView, generation: GenerationRow) -> int:
    """Return the number of workers that may run in addition, as replacements."""
    newest = view.board.usable_zygote(generation.generation)
    at_once = max(1, view.size // _SHARE)
    if newest is not None and newest.parent is not None and not newest.adopted:
        at_once = 1  # it is on trial
    return min(len(to_recycle(view.board, generation)), at_once)


# --- workers -------------------------------------------------------------------------------------


def age_due(view: PoolView, row: WorkerRow) -> float | None:
    """Return the time at which a worker reaches its age limit; None: never, or it is being replaced."""
    if row.state is not WorkerState.READY or row.limit_reached or not row.serving:
        return None
    due = row.since + view.limits.age * spread(row.worker)
    return due if due < float("inf") else None


def recycle_aged(view: PoolView) -> Iterator[ev.Action]:
    """Replace workers that have reached their age limit."""
    for row in view.board.workers.values():
        due = age_due(view, row)
        if due is not None and due <= view.now:
            yield ev.RecycleWorker(row.worker, f"it has served for {view.now - row.since:.0f} s")


def retire_replaced(view: PoolView) -> Iterator[ev.Action]:
    """Retire workers at a limit as their replacements serve."""
    current = view.board.current
    if current is None:
        return
    surplus = view.board.serving() - view.size
    for row in to_recycle(view.board, current)[: max(0, surplus)]:
        yield ev.RetireWorker(row.worker)


def dump_overdue(view: PoolView) -> Iterator[ev.Action]:
    """Request the stacks of workers with an overdue request."""
    for row in view.board.workers.values():
        if row.overdue and row.dumped_at is None and row.state is not WorkerState.KILLED:
            yield ev.DumpWorker(row.worker)


# --- zygotes -------------------------------------------------------------------------------------


def refork(view: PoolView) -> Iterator[ev.Action]:
    """Fork the next zygote from a warm worker, when a refork was requested."""
    board, current = view.board, view.board.current
    if current is None or board.candidate is not None or not current.refork.reason:
        return
    if current.refork.retry_at > view.now:
        return
    zygotes = [row for row in board.zygotes.values() if row.generation == current.generation]
    if [row.state for row in zygotes] != [ZygoteState.READY]:
        return
    worker = _warmest(board, current)
    if worker is not None:
        yield ev.ForkZygote(
            board.last_zygote + 1, current.generation, worker.worker, current.refork.guarded
        )


def _warmest(board: Scoreboard, generation: GenerationRow) -> WorkerRow | None:
    rows = {
        row.worker: row
        for row in board.workers_of(generation.generation)
        if row.serving
        and row.state is WorkerState.READY
        and not row.overdue
        and row.stopped_at is None
    }
    return rows.get(generation.refork.warmest) or next(iter(rows.values()), None)


def _on_trial(board: Scoreboard) -> list[ZygoteRow]:
    return [
        row
        for row in board.zygotes.values()
        if row.parent is not None and not row.adopted and row.state in USABLE
    ]


def judge_refork(view: PoolView) -> Iterator[ev.Action]:
    """Adopt a zygote whose first worker is ready; give up one that failed or missed its deadline."""
    board = view.board
    wanted = {row.generation for row in wanted_generations(board)}
    for zygote in _on_trial(board):
        if zygote.generation not in wanted:
            continue  # it is removed with its generation
        children = [row for row in board.workers.values() if row.zygote == zygote.zygote]
        failure = zygote.failure or _lateness(view, zygote)
        if failure is not None:
            yield ev.GiveUpRefork(zygote.zygote, failure, stacks=zygote.failure is None)
            for row in children:
                if row.state in BOOTING:
                    yield ev.KillWorker(row.worker, "its zygote was given up")
        elif any(row.was_ready for row in children):
            yield ev.AdoptZygote(zygote.zygote)


def _lateness(view: PoolView, zygote: ZygoteRow) -> Failure | None:
    late = zygote.state is ZygoteState.LOADING and trial_due(view, zygote) <= view.now
    if not late:
        return None
    limit = f"{view.limits.boot:g} s"
    return Failure(
        Blame.APPLICATION, f"the zygote forked from a worker was not ready within {limit}"
    )


def trial_due(view: PoolView, zygote: ZygoteRow) -> float:
    """Return the deadline of a zygote that is being forked from a worker."""
    return zygote.since + view.limits.boot


def dismiss_predecessors(view: PoolView) -> Iterator[ev.Action]:
    """Dismiss zygotes that were replaced by an adopted one."""
    for row in view.board.zygotes.values():
        newest = view.board.usable_zygote(row.generation)
        if (
            newest is not None
            and newest.adopted
            and row.zygote < newest.zygote
            and row.state is ZygoteState.READY
        ):
            yield ev.DismissZygote(row.zygote, followed=True)
