"""The pool as text: the STATUS line, and the list of problems."""

import math
from collections.abc import Callable, Iterator

from preforkd.core.lifecycle import State
from preforkd.core.model import ALIVE, BOOTING, Limits, WorkerState, ZygoteState
from preforkd.core.pool_view import size_of
from preforkd.core.rows import GenerationRow, WorkerRow
from preforkd.core.scoreboard import Scoreboard

Clock = Callable[[float], str]
"""Formats a monotonic time as the time of day."""
_SHOWN_AFTER = 2.0
"""Seconds after which waiting or starting is a problem."""


def summary(board: Scoreboard, limits: Limits, state: State, busy: int) -> str:
    """Return the state in one line: ``4 of 4 workers ready, 1 busy, generation 3``.

    ``busy`` is the number of workers that are running application code.
    """
    row = board.current or board.candidate
    parts = [_ready(board.serving(), size_of(board, limits)), f"{busy} busy"]
    if row is not None:
        parts.append(f"generation {row.generation}")
    text = ", ".join(parts)
    if state is State.STARTING:
        text = f"starting: {text}"
    elif state is State.RELOADING and (candidate := board.candidate):
        ready = board.count(candidate.generation, frozenset({WorkerState.READY}))
        text = f"{text}; reloading: {ready} workers of generation {candidate.generation} ready"
    elif state is State.STOPPING:
        text = f"stopping: {len(board.workers)} workers left, {busy} busy"
    leaving = sum(row.state not in ALIVE for row in board.workers.values())
    if leaving and state is not State.STOPPING:
        text = f"{text}; {leaving} draining"
    return text


def _ready(serving: int, size: int) -> str:
    if serving > size:  # the size was reduced, and they have not exited yet
        return f"{serving} workers ready, {serving - size} more than configured"
    return f"{serving} of {size} workers ready"


def problems(board: Scoreboard, limits: Limits, now: float, clock: Clock) -> list[str]:
    """Return the problems that an administrator should know, the most serious first.

    A sentence for each: what, since when, what happens next. Times are times of day, so that a line that was sent
    a while ago is still true.
    """
    found: list[str] = []
    current = board.current
    if current is None or board.stopping:
        return found
    serving = board.serving()
    if serving < limits.floor:
        found.append(_shortage(board, limits, current, clock))
    streak = current.failure_streak
    if (streak.failed_starts or streak.short_lives) and streak.retry_at > now:
        reason = current.failure.reason if current.failure else "workers end soon after their start"
        when = f"last at {clock(streak.last)}, next attempt at {clock(streak.retry_at)}"
        found.append(f"{streak.describe()}, {when}: {reason}")
    elif serving < limits.floor and current.failure and streak.failed_starts:
        found.append(f"the last start failed at {clock(streak.last)}: {current.failure.reason}")
    found += _zygote_problems(board, limits, current, clock)
    found += _worker_problems(board, limits, now, clock)
    found += _saturation(board, limits, now, clock)
    return found


def _shortage(board: Scoreboard, limits: Limits, current: GenerationRow, clock: Clock) -> str:
    serving = board.serving()
    since = board.fewer_since.get(limits.floor if serving else 1, current.since)
    if serving:
        since = max(since, board.demand.grown_at)  # before that, fewer were wanted
    what = f"only {serving} of {limits.floor} workers serve" if serving else "no worker is serving"
    text = f"{what} since {clock(since)}"
    if not serving:
        text += "; connections wait in the backlog"
    if coming := board.count(current.generation, BOOTING):
        verb = "is" if coming == 1 else "are"
        text += f"; {coming} {verb} starting"
    return text


def _zygote_problems(
    board: Scoreboard, limits: Limits, current: GenerationRow, clock: Clock
) -> Iterator[str]:
    zygote = board.usable_zygote(current.generation)
    if zygote is not None and zygote.stopped_at is not None:
        end = clock(zygote.stopped_at + limits.stopped)
        yield (
            f"the zygote was stopped by a signal at {clock(zygote.stopped_at)}; no worker can be "
            f"replaced; unless it is continued, it is killed at {end} and the application is reloaded"
        )
    if zygote is None or zygote.state is not ZygoteState.LOADING or zygote.parent is not None:
        return
    yield (
        f"the zygote was lost; another has been loading the application since {clock(zygote.since)}; "
        f"no worker can be replaced until then; given up at {clock(zygote.since + limits.start)}"
    )


def _worker_problems(board: Scoreboard, limits: Limits, now: float, clock: Clock) -> Iterator[str]:
    for row in board.workers.values():
        if row.state is WorkerState.KILLED:
            continue
        name = f"worker {row.slot}"
        if row.stopped_at is not None:
            end = clock(row.stopped_at + limits.stopped)
            yield (
                f"{name} was stopped by a signal at {clock(row.stopped_at)}; "
                f"it is killed at {end} unless it is continued"
            )
        elif now < _shown_at(row, limits):
            continue
        elif row.state is WorkerState.FORKING:
            end = clock(row.since + limits.boot)
            yield (
                f"the zygote has not forked {name}, requested at {clock(row.born)}; "
                f"the zygote is replaced at {end} unless it responds"
            )
        elif row.state in BOOTING:
            end = clock(row.since + limits.boot)
            yield f"{name} has been starting since {clock(row.born)}; it is killed at {end}"
        else:
            end = clock(row.since + limits.drain)
            yield (
                f"{name} has been draining since {clock(row.since)} and is still busy; "
                f"it is killed at {end}"
            )


def _shown_at(row: WorkerRow, limits: Limits) -> float:
    if row.state in BOOTING:
        return row.since + max(_SHOWN_AFTER, limits.boot / 3)
    if row.state is WorkerState.RETIRING:
        return row.since + limits.drain / 3
    return math.inf


def next_problem_at(board: Scoreboard, limits: Limits, now: float) -> float:
    """Return the time at which `problems` grows by the passing of time alone; inf: never."""
    if board.current is None or board.stopping:
        return math.inf
    moments = (_shown_at(row, limits) for row in board.workers.values())
    return min((moment for moment in moments if moment > now), default=math.inf)


def _saturation(board: Scoreboard, limits: Limits, now: float, clock: Clock) -> Iterator[str]:
    demand = board.demand
    if demand.waiting_since is None or now - demand.waiting_since < _SHOWN_AFTER:
        return
    text = (
        f"all workers have been busy since {clock(demand.waiting_since)} "
        f"and {demand.sample.waiting} connections wait"
    )
    if limits.elastic and size_of(board, limits) < limits.maximum:
        yield f"{text}; the pool grows up to {limits.maximum} workers"
    else:
        which = "workers.max" if limits.elastic else "workers.count"
        yield f"{text}; the pool has {limits.maximum} workers and does not grow ({which})"


def healthy(board: Scoreboard, limits: Limits, now: float) -> bool:
    """Return whether the pool serves or is starting to: the condition of the watchdog ping.

    A pool without a serving worker is healthy for as long as a start may take and the longest backoff lasts.
    """
    if board.current is None or board.stopping:
        return True
    coming = any(row.state in BOOTING for row in board.workers.values())
    if board.serving_lost_at is None:
        return True
    allowed = limits.start + limits.boot * coming + 30.0
    return now - board.serving_lost_at < allowed
