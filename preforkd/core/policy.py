"""The policy: from the scoreboard to the actions that are due now.

`decide` is level-triggered and reads no clock; see the package. `preforkd.supervisor.pool` performs the actions.

A rule edits no row: it yields actions, and `decide` applies them to a copy, so that the next rule sees the
effects of those before it. `_SERVING_RULES` and `_STOPPING_RULES` have the order.
"""

from collections.abc import Iterator

from msgspec import Struct

from preforkd.core import autoscale, events as ev, recycling
from preforkd.core.model import ALIVE, BOOTING, Limits, Role, WorkerState, ZygoteState
from preforkd.core.pool_view import READY, PoolView, Rule, size_of, wanted_generations
from preforkd.core.rows import GenerationRow, WorkerRow, ZygoteRow
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Blame, Failure

_UNWANTED = "its generation is no longer wanted"


def decide(board: Scoreboard, limits: Limits, now: float) -> ev.Plan:
    """Return the actions for this scoreboard, in the order in which to perform them, and the next wake-up.

    ``now`` is monotonic seconds. The scoreboard is not changed.
    """
    planned = board.copy()
    candidate = board.candidate
    view = PoolView(planned, limits, now)
    actions: list[ev.Action] = []
    while step := _next_step(view):
        for action in step:
            planned.apply(action, now)
        actions.extend(step)
        if limits.candidate and candidate and ev.Promote(candidate.generation) in step:
            view = PoolView(planned, limits.candidate, now)
    return ev.Plan(tuple(actions), _wake_at(view))


def _next_step(view: PoolView) -> list[ev.Action]:
    if view.board.finished:
        return []
    rules = _STOPPING_RULES if view.board.stopping else _SERVING_RULES
    for rule in rules:
        if actions := list(rule(view)):
            return actions
    return []


# --- deadlines -----------------------------------------------------------------------------------


def _worker_deadline(row: WorkerRow, limits: Limits) -> float | None:
    return min((due.when for due in _worker_deadlines(row, limits)), default=None)


class _Due(Struct, frozen=True, order=True):
    """The time at which a process is killed, the reason, and whether its stacks are logged."""

    when: float
    reason: str
    stacks: bool = False


def _worker_deadlines(row: WorkerRow, limits: Limits) -> Iterator[_Due]:
    if row.state is WorkerState.KILLED:
        return
    name = f"worker {row.slot}"
    if row.state is WorkerState.FORKING:
        reason = f"{name} was not forked within {limits.boot:g} s: its zygote does not answer"
        yield _Due(row.since + limits.boot, reason)
    if row.state is WorkerState.STARTING:
        reason = f"{name} was not ready within {limits.boot:g} s"
        yield _Due(row.since + limits.boot, reason, stacks=True)
    if row.state is WorkerState.RETIRING:
        reason = f"{name} did not exit within {limits.drain:g} s"
        yield _Due(row.since + limits.drain, reason, stacks=True)
    if row.dumped_at is not None:
        yield _Due(row.dumped_at + limits.stacks_timeout, row.overdue)
    if row.stopped_at is not None:
        reason = f"{name} was stopped by a signal for {limits.stopped:g} s"
        yield _Due(row.stopped_at + limits.stopped, reason)


def _kill_late_workers(view: PoolView) -> Iterator[ev.Action]:
    for row in view.board.workers.values():
        deadline = _worker_deadline(row, view.limits)
        if deadline is not None and deadline <= view.now:
            due = min(_worker_deadlines(row, view.limits))
            # A stopped process cannot write its stacks.
            stacks = due.stacks and row.stopped_at is None
            yield ev.KillWorker(row.worker, due.reason, stacks)


def _zygote_deadlines(view: PoolView, row: ZygoteRow) -> Iterator[_Due]:
    limits = view.limits
    if row.state is ZygoteState.KILLED:
        return
    if row.state is ZygoteState.DISMISSED:
        reason = f"it did not exit within {limits.dismiss:g} s"
        yield _Due(row.since + limits.dismiss, reason, stacks=True)
    elif row.parent is not None and not row.adopted:
        # For recycling.judge_refork.
        if row.state is ZygoteState.LOADING:
            yield _Due(row.since + limits.boot, f"it was not ready within {limits.boot:g} s")
        return
    if row.state is ZygoteState.LOADING:
        reason = f"loading the application took longer than {limits.start:g} s"
        yield _Due(row.since + limits.start, reason, stacks=True)
    if row.state is ZygoteState.READY:
        for worker in view.board.workers.values():
            if worker.zygote == row.zygote and worker.state is WorkerState.FORKING:
                reason = f"it did not fork worker {worker.slot} within {limits.boot:g} s"
                yield _Due(worker.since + limits.boot, reason, stacks=True)
    if row.stopped_at is not None:
        reason = f"it was stopped by a signal for {limits.stopped:g} s"
        yield _Due(row.stopped_at + limits.stopped, reason)


def _kill_late_zygotes(view: PoolView) -> Iterator[ev.Action]:
    for row in view.board.zygotes.values():
        due = min(_zygote_deadlines(view, row), default=None)
        if due is not None and due.when <= view.now:
            stacks = due.stacks and row.stopped_at is None
            yield ev.KillZygote(row.zygote, due.reason, stacks)


def _wake_at(view: PoolView) -> float | None:
    times = list(_deadlines(view))
    return min(times) if times else None


def _deadlines(view: PoolView) -> Iterator[float]:
    board, limits = view.board, view.limits
    if board.finished:
        return
    for worker in board.workers.values():
        if (deadline := _worker_deadline(worker, limits)) is not None:
            yield deadline
    for zygote in board.zygotes.values():
        yield from (due.when for due in _zygote_deadlines(view, zygote))
    if not board.stopping:
        yield from _deadlines_in_service(view)


def _deadlines_in_service(view: PoolView) -> Iterator[float]:
    board = view.board
    if (candidate := board.candidate) is not None:
        yield candidate.since + view.limits.start
    for generation in wanted_generations(board):
        lacks = board.usable_zygote(generation.generation) is None or _lacking(view, generation)
        if lacks and generation.failure_streak.retry_at > view.now:
            yield generation.failure_streak.retry_at
        if generation.refork.reason and generation.refork.retry_at > view.now:
            yield generation.refork.retry_at
    for row in board.workers.values():
        if (deadline := recycling.age_due(view, row)) is not None:
            yield deadline
    if (deadline := autoscale.shrink_due(view)) is not None and deadline > view.now:
        yield deadline


# --- the candidate -------------------------------------------------------------------------------


def _judge_candidate(view: PoolView) -> Iterator[ev.Action]:
    board, limits = view.board, view.limits
    candidate = board.candidate
    if candidate is None:
        return
    number = candidate.generation
    alone = board.current is None
    if board.count(number, READY) >= _wanted_workers(view, candidate, required=True):
        yield ev.Promote(number)
    elif candidate.fatal and candidate.failure and not (alone and _may_retry(view, candidate)):
        yield ev.Abandon(number, candidate.failure)
    elif candidate.since + limits.start <= view.now:
        yield ev.Abandon(number, _too_slow(view, candidate))


def _may_retry(view: PoolView, candidate: GenerationRow) -> bool:
    # At the first start there is nothing to fall back to, so a worker's death is retried for as long as the
    # start may take.  An application that does not load would fail the same way again: that ends it at once.
    zygote = view.board.usable_zygote(candidate.generation)
    return view.limits.retry and zygote is not None and zygote.state is ZygoteState.READY


def _too_slow(view: PoolView, candidate: GenerationRow) -> Failure:
    number = candidate.generation
    ready = view.board.count(number, READY)
    wanted = _wanted_workers(view, candidate, required=True)
    zygote = view.board.usable_zygote(number)
    leaving = sum(row.state not in ALIVE for row in view.board.workers.values())
    if candidate.failure:
        return Failure(
            candidate.failure.blame,
            f"{candidate.failure.reason} (tried for {view.limits.start:g} s)",
            candidate.failure.detail,
            candidate.failure.hint,
        )
    if zygote is None or zygote.state is ZygoteState.LOADING:
        doing = "the application was still loading"
    elif leaving and not _room(view):
        doing = f"{leaving} workers of earlier generations were still draining and left no room"
    else:
        doing = f"{ready} of {wanted} workers were ready"
    return Failure(
        Blame.APPLICATION,
        f"generation {number} was not ready within {view.limits.start:g} s: {doing}",
        hint="if the application needs longer to start, raise timeouts.start",
    )


def _wanted_workers(view: PoolView, generation: GenerationRow, *, required: bool = False) -> int:
    # For a candidate: as many as it starts before it is promoted.
    limits = view.limits
    if view.board.current is None or generation.role is not Role.CANDIDATE:
        return limits.floor if required else view.size
    # No more than it will need: further ones would retire at once.
    return min(view.size, size_of(view.board, limits.candidate or limits), limits.surge)


# --- zygotes and workers -------------------------------------------------------------------------


def _spawn_zygotes(view: PoolView) -> Iterator[ev.Action]:
    board = view.board
    for generation in wanted_generations(board):
        number = generation.generation
        dying = any(row.generation == number for row in board.zygotes.values())
        waiting = generation.failure_streak.retry_at > view.now
        given_up = generation.role is Role.CANDIDATE and generation.fatal
        if not (dying or waiting or given_up):
            yield ev.SpawnZygote(board.last_zygote + 1, number)
            return


def _dismiss_zygotes(view: PoolView) -> Iterator[ev.Action]:
    wanted = {row.generation for row in wanted_generations(view.board)}
    for row in view.board.zygotes.values():
        if row.generation in wanted:
            continue
        if row.state is ZygoteState.LOADING and (row.pid is not None or row.parent is not None):
            yield ev.KillZygote(row.zygote, _UNWANTED, _took_too_long(view, row.generation))
        elif _may_leave(view, row):
            yield ev.DismissZygote(row.zygote)


def _may_leave(view: PoolView, row: ZygoteRow) -> bool:
    # Its exit handlers remove what the workers use (temporary directories, helper processes).
    in_use = any(view.board.workers_of(row.generation))
    return row.state is ZygoteState.READY and not in_use


def _took_too_long(view: PoolView, generation: int) -> bool:
    row = view.board.generations.get(generation)
    if row is None or row.role is not Role.ABANDONED:
        return False
    return row.since + view.limits.start <= view.now


def _room(view: PoolView) -> int:
    return view.limits.maximum + view.limits.surge - len(view.board.workers)


def _lacking(view: PoolView, generation: GenerationRow) -> int:
    wanted = _wanted_workers(view, generation)
    if generation.role is Role.CURRENT:
        wanted += recycling.replacing(view, generation)
    return max(0, wanted - view.board.count(generation.generation, ALIVE))


def _fork_workers(view: PoolView) -> Iterator[ev.Action]:
    board = view.board
    for generation in wanted_generations(board):
        zygote = board.usable_zygote(generation.generation)
        ready = zygote is not None and zygote.state is ZygoteState.READY
        if not ready or generation.failure_streak.retry_at > view.now:
            continue
        assert zygote is not None
        if min(_lacking(view, generation), _room(view)) > 0:
            yield ev.ForkWorker(
                board.last_worker + 1, board.free_slot(), generation.generation, zygote.zygote
            )
            return


def _serve(view: PoolView) -> Iterator[ev.Action]:
    current = view.board.current
    if current is None:
        return
    for row in view.board.workers_of(current.generation):
        if row.state is WorkerState.READY and not row.serving:
            yield ev.ServeWorker(row.worker)


def _remove_unwanted(view: PoolView) -> Iterator[ev.Action]:
    # These workers never served: no client loses a connection.
    for row in view.board.workers.values():
        generation = view.board.generations.get(row.generation)
        role = generation.role if generation else Role.OLD
        if role in {Role.CURRENT, Role.CANDIDATE}:
            continue
        if row.state in BOOTING:
            late = _took_too_long(view, row.generation)
            yield ev.KillWorker(row.worker, _UNWANTED, late)
        elif row.state is WorkerState.READY and not row.serving:
            yield ev.RetireWorker(row.worker)


def _retire_surplus(view: PoolView) -> Iterator[ev.Action]:
    board = view.board
    current = board.current
    if current is None:
        return
    number = current.generation
    old = [
        row
        for row in board.workers.values()
        if row.generation < number and row.serving and row.state is WorkerState.READY
    ]
    # Only workers that serve count as capacity: one that is still starting may never be ready.
    surplus = board.serving() - view.size
    for row in old[: max(0, surplus)]:
        yield ev.RetireWorker(row.worker)
    mine = [row for row in board.workers_of(number) if row.state in ALIVE]
    extra = len(mine) - view.size - recycling.replacing(view, current)
    if view.limits.elastic:
        # An elastic pool shrinks by idle workers only.
        busy = board.demand.sample.busy
        mine = [row for row in mine if row.worker not in busy]
    # First those that do not serve yet, then the youngest: the oldest are the warmest, and the shared pages
    # that they have written to, their replacements would copy again.
    mine.sort(key=lambda row: (row.state is WorkerState.READY, -row.worker))
    for row in mine[: max(0, extra)]:
        yield ev.RetireWorker(row.worker)


# --- stopping ------------------------------------------------------------------------------------


def _end_zygotes(view: PoolView) -> Iterator[ev.Action]:
    for row in view.board.zygotes.values():
        if row.state is ZygoteState.LOADING:
            yield ev.KillZygote(row.zygote, "the service is stopping")
        elif _may_leave(view, row):
            yield ev.DismissZygote(row.zygote)


def _end_workers(view: PoolView) -> Iterator[ev.Action]:
    assert view.board.stopping is not None
    for row in view.board.workers.values():
        if row.state is WorkerState.KILLED:
            continue
        if view.board.stopping.quick or row.state in BOOTING:
            yield ev.KillWorker(row.worker, "the service is stopping")
        elif row.state is WorkerState.READY:
            yield ev.RetireWorker(row.worker)


def _finish(view: PoolView) -> Iterator[ev.Action]:
    if not view.board.workers and not view.board.zygotes:
        yield ev.Finish()


_SERVING_RULES: tuple[Rule, ...] = (
    _judge_candidate,
    recycling.dump_overdue,
    recycling.judge_refork,
    _kill_late_zygotes,
    _kill_late_workers,
    _serve,
    _remove_unwanted,
    _dismiss_zygotes,
    recycling.dismiss_predecessors,
    recycling.recycle_aged,
    recycling.retire_replaced,
    autoscale.shrink_to_busy,
    autoscale.grow,
    autoscale.shrink,
    _retire_surplus,
    recycling.refork,
    _spawn_zygotes,
    _fork_workers,
)

_STOPPING_RULES: tuple[Rule, ...] = (
    _end_zygotes,
    _end_workers,
    recycling.dump_overdue,
    _kill_late_workers,
    _kill_late_zygotes,
    _finish,
)
