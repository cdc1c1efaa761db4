"""The pool in words: the STATUS line, and what is wrong with it, for people."""

import math
from collections.abc import Callable, Iterator

from preforkd.core.lifecycle import State
from preforkd.core.model import ALIVE, BOOTING, Limits, WorkerState, ZygoteState
from preforkd.core.pool_view import size_of
from preforkd.core.rows import GenerationRow, WorkerRow
from preforkd.core.scoreboard import Scoreboard

Clock = Callable[[float], str]
"""Returns the time of day of a monotonic time, for people."""
_PATIENCE = 2.0
"""Seconds of waiting that are worth a word."""


def summary(board: Scoreboard, limits: Limits, state: State, busy: int) -> str:
    """Return the truth in one line: ``4 of 4 workers ready, 1 busy, generation 3``.

    ``busy`` is the number of workers that are in the application right now.
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
    if serving > size:  # a smaller size was asked for, and they have yet to leave
        return f"{serving} workers ready, {serving - size} more than configured"
    return f"{serving} of {size} workers ready"


def problems(board: Scoreboard, limits: Limits, now: float, clock: Clock) -> list[str]:
    """Return what an administrator should know is wrong, the gravest first.

    A sentence for each: what, since when, what happens next. Times are those of the day, so that a line
    that was said a while ago is still true.
    """
    found: list[str] = []
    current = board.current
    if current is None or board.stopping:
        return found
    serving = board.serving()
    if serving < limits.floor:
        found.append(_shortage(board, limits, current, clock))
    strikes = current.failure_streak
    count = strikes.failed_starts + strikes.short_lives
    if count and strikes.retry_at > now:
        reason = current.failure.reason if current.failure else "workers end soon after their start"
        when = f"the last at {clock(strikes.last)}, the next is at {clock(strikes.retry_at)}"
        found.append(f"starts failed {count} times, {when}: {reason}")
    elif serving < limits.floor and current.failure and strikes.failed_starts:
        found.append(f"the last start failed at {clock(strikes.last)}: {current.failure.reason}")
    found += _troubles_of_zygotes(board, limits, current, clock)
    found += _troubles_of_workers(board, limits, now, clock)
    found += _saturation(board, limits, now, clock)
    return found


def _shortage(board: Scoreboard, limits: Limits, current: GenerationRow, clock: Clock) -> str:
    serving = board.serving()
    since = board.fewer_since.get(limits.floor if serving else 1, current.since)
    if serving:
        since = max(since, board.demand.grown_at)  # before that so many were not asked for
    what = f"only {serving} of {limits.floor} workers serve" if serving else "no worker serves"
    text = f"{what}, since {clock(since)}"
    if not serving:
        text += "; connections wait in the kernel's queue"
    if coming := board.count(current.generation, BOOTING):
        verb = "is" if coming == 1 else "are"
        text += f"; {coming} {verb} starting"
    return text


def _troubles_of_zygotes(
    board: Scoreboard, limits: Limits, current: GenerationRow, clock: Clock
) -> Iterator[str]:
    zygote = board.usable_zygote(current.generation)
    if zygote is not None and zygote.stopped_at is not None:
        end = clock(zygote.stopped_at + limits.stopped)
        yield (
            f"the zygote was stopped by a signal at {clock(zygote.stopped_at)}, so no worker can be "
            f"replaced; it is killed at {end} unless it goes on, and the application is loaded again"
        )
    if zygote is None or zygote.state is not ZygoteState.LOADING or zygote.parent is not None:
        return
    yield (
        f"the zygote was lost, and another loads the application since {clock(zygote.since)}; "
        f"workers are replaced again when it has, at {clock(zygote.since + limits.start)} it is given up"
    )


def _troubles_of_workers(
    board: Scoreboard, limits: Limits, now: float, clock: Clock
) -> Iterator[str]:
    for row in board.workers.values():
        if row.state is WorkerState.KILLED:
            continue
        name = f"worker {row.slot}"
        if row.stopped_at is not None:
            end = clock(row.stopped_at + limits.stopped)
            yield (
                f"{name} was stopped by a signal at {clock(row.stopped_at)}, "
                f"and is killed at {end} unless it goes on"
            )
        elif now < _worth_a_word_at(row, limits):
            continue
        elif row.state is WorkerState.FORKING:
            end = clock(row.since + limits.boot)
            yield (
                f"the zygote has not forked {name}, asked for at {clock(row.born)}; "
                f"the zygote is replaced at {end} if it does not answer"
            )
        elif row.state in BOOTING:
            end = clock(row.since + limits.boot)
            yield f"{name} has been starting since {clock(row.born)}, and is killed at {end}"
        else:
            end = clock(row.since + limits.drain)
            yield (
                f"{name} was told to leave at {clock(row.since)} and is busy still; "
                f"it is killed at {end}"
            )


def _worth_a_word_at(row: WorkerRow, limits: Limits) -> float:
    if row.state in BOOTING:
        return row.since + max(_PATIENCE, limits.boot / 3)
    if row.state is WorkerState.RETIRING:
        return row.since + limits.drain / 3
    return math.inf


def next_problem_at(board: Scoreboard, limits: Limits, now: float) -> float:
    """Return when `problems` says more than now, if nothing happens until then; inf for never."""
    if board.current is None or board.stopping:
        return math.inf
    moments = (_worth_a_word_at(row, limits) for row in board.workers.values())
    return min((moment for moment in moments if moment > now), default=math.inf)


def _saturation(board: Scoreboard, limits: Limits, now: float, clock: Clock) -> Iterator[str]:
    demand = board.demand
    if demand.waiting_since is None or now - demand.waiting_since < _PATIENCE:
        return
    text = (
        f"all workers have been busy since {clock(demand.waiting_since)}, "
        f"and {demand.sample.waiting} connections wait"
    )
    if limits.elastic and size_of(board, limits) < limits.maximum:
        yield f"{text}; the pool grows, up to {limits.maximum}"
    else:
        which = "its maximum" if limits.elastic else "its size"
        yield f"{text}; {which} of {limits.maximum} is reached, so they wait until a request ends"


def healthy(board: Scoreboard, limits: Limits, now: float) -> bool:
    """Tell whether the pool serves or is on its way to: what the watchdog's ping vouches for.

    A pool without a serving worker is on its way for as long as a start may take and its longest back-off lasts.
    """
    if board.current is None or board.stopping:
        return True
    coming = any(row.state in BOOTING for row in board.workers.values())
    if board.serving_lost_at is None:
        return True
    patience = limits.start + limits.boot * coming + 30.0
    return now - board.serving_lost_at < patience
