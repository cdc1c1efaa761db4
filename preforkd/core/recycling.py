"""Rules that renew a generation from within: workers that are spent, and zygotes forked from warm workers.

A worker that has reached a limit serves on until another that takes its place does: capacity is
never lost, and where starts fail, nobody leaves. A zygote that was forked from a worker has to prove
itself by a first worker of its own; until then the zygote before it stays. Then all workers of
earlier zygotes are spent.
"""

from collections.abc import Iterator

from preforkd.core import events as ev
from preforkd.core.model import BOOTING, USABLE, WorkerState, ZygoteState
from preforkd.core.pool_view import PoolView, wanted_generations
from preforkd.core.rows import GenerationRow, WorkerRow, ZygoteRow
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Blame, Failure

_SHARE = 8
"""One worker of so many is replaced at a time."""
_GOLDEN = 0.6180339887498949


def spread(worker: int) -> float:
    """Return the share (0.8 to 1) of a limit that holds for this worker.

    Multiples of the golden ratio lie apart from each other, so that workers of the same age never all
    reach a limit together; and no random source is needed.
    """
    return 0.8 + 0.2 * ((worker * _GOLDEN) % 1.0)


def to_recycle(board: Scoreboard, generation: GenerationRow) -> list[WorkerRow]:
    """Return the workers that serve and are to be replaced, those of the oldest zygotes first."""
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
    """Return how many workers may run beside those that they are to replace."""
    newest = view.board.usable_zygote(generation.generation)
    at_once = max(1, view.size // _SHARE)
    if newest is not None and newest.parent is not None and not newest.adopted:
        at_once = 1  # it has yet to prove itself
    return min(len(to_recycle(view.board, generation)), at_once)


# --- workers -------------------------------------------------------------------------------------


def age_due(view: PoolView, row: WorkerRow) -> float | None:
    """Return when a worker is too old; None if it never is, or is spent already."""
    if row.state is not WorkerState.READY or row.limit_reached or not row.serving:
        return None
    due = row.since + view.limits.age * spread(row.worker)
    return due if due < float("inf") else None


def recycle_aged(view: PoolView) -> Iterator[ev.Action]:
    """Wish that workers which have become too old are replaced."""
    for row in view.board.workers.values():
        due = age_due(view, row)
        if due is not None and due <= view.now:
            yield ev.RecycleWorker(row.worker, f"it has served for {view.now - row.since:.0f} s")


def retire_replaced(view: PoolView) -> Iterator[ev.Action]:
    """Wish that a spent worker leaves when one that replaces it serves."""
    current = view.board.current
    if current is None:
        return
    surplus = view.board.serving() - view.size
    for row in to_recycle(view.board, current)[: max(0, surplus)]:
        yield ev.RetireWorker(row.worker)


def dump_overdue(view: PoolView) -> Iterator[ev.Action]:
    """Wish for the stacks of workers whose request takes too long."""
    for row in view.board.workers.values():
        if row.overdue and row.dumped_at is None and row.state is not WorkerState.KILLED:
            yield ev.DumpWorker(row.worker)


# --- zygotes -------------------------------------------------------------------------------------


def refork(view: PoolView) -> Iterator[ev.Action]:
    """Wish that a warm worker forks the next zygote, when that was asked for."""
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
        yield ev.ForkZygote(board.last_zygote + 1, current.generation, worker.worker)


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
    """Adopt a zygote whose first worker can serve; give up one that failed or took too long."""
    board = view.board
    wanted = {row.generation for row in wanted_generations(board)}
    for zygote in _on_trial(board):
        if zygote.generation not in wanted:
            continue  # it goes with its generation
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
    patience = f"{view.limits.boot:g} s"
    return Failure(
        Blame.APPLICATION, f"the zygote forked from a worker was not ready within {patience}"
    )


def trial_due(view: PoolView, zygote: ZygoteRow) -> float:
    """Return until when a zygote that is forked from a worker has to be ready."""
    return zygote.since + view.limits.boot


def dismiss_predecessors(view: PoolView) -> Iterator[ev.Action]:
    """Wish that zygotes leave which another of their generation has followed."""
    for row in view.board.zygotes.values():
        newest = view.board.usable_zygote(row.generation)
        if (
            newest is not None
            and newest.adopted
            and row.zygote < newest.zygote
            and row.state is ZygoteState.READY
        ):
            yield ev.DismissZygote(row.zygote, followed=True)
