"""The pool in words: the STATUS line, and what is wrong with it, for people."""

from collections.abc import Iterator

from preforkd.core.life import State
from preforkd.core.model import ALIVE, COMING, Limits, WorkerState
from preforkd.core.scoreboard import Scoreboard
from preforkd.core.view import size_of

_PATIENCE = 2.0
"""Seconds of waiting that are worth a word."""


def summary(board: Scoreboard, limits: Limits, state: State, busy: int) -> str:
    """Return the truth in one line: ``4 of 4 workers ready, 1 busy, generation 3``.

    ``busy`` is the number of workers that are in the application right now.
    """
    row = board.current or board.candidate
    parts = [f"{board.serving()} of {size_of(board, limits)} workers ready", f"{busy} busy"]
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


def problems(board: Scoreboard, limits: Limits, now: float) -> list[str]:
    """Return what an administrator should know is wrong, one sentence each, the gravest first."""
    found: list[str] = []
    current = board.current
    if current is None or board.stopping:
        return found
    serving = board.serving()
    if serving == 0:
        found.append("no worker serves; connections wait in the kernel's queue")
    elif serving < limits.floor:
        found.append(f"only {serving} of {limits.floor} workers serve")
    if current.strikes.retry_at > now:
        reason = current.failure.reason if current.failure else "workers end soon after their start"
        count = current.strikes.boots + current.strikes.short_lives
        wait = current.strikes.retry_at - now
        found.append(f"starts failed {count} times, next try in {wait:.1f} s: {reason}")
    elif serving < limits.floor and current.failure and current.strikes.boots:
        found.append(f"the last start failed: {current.failure.reason}")
    found += _troubles_of_workers(board, limits, now)
    found += _saturation(board, limits, now)
    return found


def _troubles_of_workers(board: Scoreboard, limits: Limits, now: float) -> Iterator[str]:
    for row in board.workers.values():
        if row.stopped_at is not None:
            rest = max(0.0, row.stopped_at + limits.stopped - now)
            yield (
                f"worker {row.slot} was stopped by a signal {now - row.stopped_at:.0f} s ago, "
                f"and is killed in {rest:.0f} s"
            )


def _saturation(board: Scoreboard, limits: Limits, now: float) -> Iterator[str]:
    demand = board.demand
    if demand.waiting_since is None or now - demand.waiting_since < _PATIENCE:
        return
    text = (
        f"all workers have been busy for {now - demand.waiting_since:.0f} s, "
        f"and {demand.look.waiting} connections wait"
    )
    if limits.elastic:
        most = size_of(board, limits) >= limits.maximum
        text += f"; the pool {'has its maximum of' if most else 'grows, up to'} {limits.maximum}"
    yield text


def healthy(board: Scoreboard, limits: Limits, now: float) -> bool:
    """Tell whether the pool serves or is on its way to: what the watchdog's ping vouches for.

    A pool without a serving worker is on its way for as long as a start may take and its longest back-off lasts.
    """
    if board.current is None or board.stopping:
        return True
    coming = any(row.state in COMING for row in board.workers.values())
    if board.serving_lost_at is None:
        return True
    patience = limits.start + limits.boot * coming + 30.0
    return now - board.serving_lost_at < patience
