"""Rows of a scoreboard, made by hand: a test states only what is unusual about each."""

from preforkd.core.model import Role, WorkerState, ZygoteState
from preforkd.core.rows import GenerationRow, WorkerRow, ZygoteRow
from preforkd.core.scoreboard import Scoreboard

NOW = 500.0


def worker_row(worker=1, **fields):
    """Return a worker of generation 1: a process that is ready, apart from ``fields``."""
    usual = {"slot": worker, "generation": 1, "zygote": 1, "state": WorkerState.READY}
    usual |= {"born": 100.0, "since": 110.0, "pid": 20 + worker}
    return WorkerRow(worker, **(usual | fields))


def serving(worker=1, **fields):
    """Return a worker that serves."""
    return worker_row(worker, **({"serving": True, "was_ready": True} | fields))


def zygote_row(zygote=1, **fields):
    """Return a zygote of generation 1: a process that is ready, apart from ``fields``."""
    usual = {"generation": 1, "state": ZygoteState.READY, "since": 110.0, "pid": 10 + zygote}
    return ZygoteRow(zygote, **(usual | fields))


def scoreboard(*rows):
    """Return a scoreboard with these rows; generation 1 is in service unless a row describes it."""
    board = Scoreboard()
    board.generations[1] = GenerationRow(1, Role.CURRENT, 100.0)
    for row in rows:
        if isinstance(row, ZygoteRow):
            board.zygotes[row.zygote] = row
            board.last_zygote = max(board.last_zygote, row.zygote)
        elif isinstance(row, WorkerRow):
            board.workers[row.worker] = row
            board.last_worker = max(board.last_worker, row.worker)
        else:
            board.generations[row.generation] = row
    return board
