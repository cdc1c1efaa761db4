"""The STATUS line and the problems."""

import math

import pytest
from msgspec.structs import replace

from preforkd.core import events as ev
from preforkd.core.backoff import FailureStreak
from preforkd.core.demand import Demand
from preforkd.core.lifecycle import State
from preforkd.core.model import Limits, Role, WorkerState, ZygoteState
from preforkd.core.rows import GenerationRow
from preforkd.core.status import healthy, next_problem_at, problems, summary
from preforkd.errors import Blame, Failure
from tests.core.rows import NOW, scoreboard, serving, worker_row, zygote_row
from tests.core.test_policy import LIMITS, Pool


def test_the_line_in_each_state():
    """At the start, in service, during a reload, while draining, at the stop."""
    pool = Pool()
    pool.feed(ev.GenerationRequested(1))
    line = summary(pool.board, LIMITS, State.STARTING, 0)
    assert line == "starting: 0 of 2 workers ready, 0 busy, generation 1"
    pool = Pool().serve()
    assert (
        summary(pool.board, LIMITS, State.SERVING, 1)
        == "2 of 2 workers ready, 1 busy, generation 1"
    )
    pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    pool.feed(ev.WorkerForked(3, 23), ev.WorkerReady(3))
    assert "reloading: 1 workers of generation 2 ready" in summary(
        pool.board, LIMITS, State.RELOADING, 0
    )
    pool.feed(ev.WorkerForked(4, 24), ev.WorkerReady(4))
    assert summary(pool.board, LIMITS, State.SERVING, 0).endswith("generation 2; 2 draining")
    pool.feed(ev.StopRequested())
    assert summary(pool.board, LIMITS, State.STOPPING, 3) == "stopping: 4 workers left, 3 busy"


def found(pool):
    """Return the problems; times are seconds since the test's beginning."""
    return problems(pool.board, LIMITS, pool.now, lambda when: f"T{when:g}")


def test_too_few_workers():
    """How many, since when, and whether others are starting; the gravest first, with the next try."""
    pool = Pool().serve()
    assert found(pool) == []
    start = pool.now
    pool.wait(10)
    pool.feed(ev.WorkerExited(1, "killed by SIGKILL"))
    assert found(pool) == [f"only 1 of 2 workers serve since T{start + 10:g}; 1 is starting"]
    pool.wait(1)
    pool.feed(ev.WorkerExited(2, "killed by SIGKILL"), ev.WorkerForked(3, 30))
    queue = "connections wait in the backlog"
    assert found(pool) == [f"no worker is serving since T{start + 11:g}; {queue}; 2 are starting"]
    pool.feed(ev.WorkerFailed(3, Failure(Blame.APPLICATION, "no database")))
    first, second = found(pool)
    assert first.startswith("no worker is serving")
    when = f"last at T{pool.now:g}, next attempt at T{pool.now + 0.25:g}"
    assert second == f"1 start failure, {when}: no database"


def test_a_shortage_begins_where_the_number_fell():
    """Later losses and other starts do not change since when there are too few."""
    pool = Pool().serve()
    pool.wait(10)
    pool.feed(ev.WorkerExited(1, "x"))
    lost = pool.now
    pool.wait(1)
    pool.feed(ev.WorkerExited(2, "x"))
    pool.wait(1)
    pool.feed(ev.WorkerForked(3, 30), ev.WorkerReady(3))
    assert found(pool)[0].startswith(f"only 1 of 2 workers serve since T{lost:g}")
    pool.feed(ev.WorkerForked(4, 31), ev.WorkerReady(4))
    assert found(pool) == []
    assert pool.board.fewer_since == {}


def test_troubles_of_one_worker():
    """One that is stopped, one that hangs at its start, one that does not leave: and when it is killed."""
    pool = Pool().serve()
    pool.wait(10)
    pool.feed(ev.WorkerStopped(1, True))
    end = f"T{pool.now + LIMITS.stopped:g}"
    stopped = f"worker 1 was stopped by a signal at T{pool.now:g}; it is killed at {end}"
    assert found(pool) == [f"{stopped} unless it is continued"]
    pool.feed(ev.WorkerStopped(1, False), ev.WorkerLeaving(2), ev.WorkerForked(3, 30))
    left = pool.now
    assert all("worker" not in line.partition(" ")[0] for line in found(pool))
    pool.wait(LIMITS.drain / 3)
    end = f"T{left + LIMITS.drain:g}"
    line = f"worker 2 has been draining since T{left:g} and is still busy; it is killed at {end}"
    assert line in found(pool)
    pool.wait(LIMITS.boot / 2 - LIMITS.drain / 3)
    line = f"worker 3 has been starting since T{left:g}; it is killed at T{left + LIMITS.boot:g}"
    assert line in found(pool)


def test_the_next_problem_is_known_beforehand():
    """What comes by the passing of time alone is reported at its time, not with the next event."""
    pool = Pool().serve()
    assert next_problem_at(pool.board, LIMITS, pool.now) == math.inf
    pool.feed(ev.WorkerExited(1, "killed by SIGKILL"), ev.WorkerForked(3, 30))
    pool.wait(0.5)
    pool.feed(ev.WorkerLimitReached(2, "it has answered enough"))
    moments = []
    while (moment := next_problem_at(pool.board, LIMITS, pool.now)) < math.inf:
        before = found(pool)
        pool.now = moment - 0.001
        assert found(pool) == before
        pool.now = moment
        assert len(found(pool)) > len(before)
        moments.append(moment)
    assert moments
    pool.feed(ev.StopRequested())
    assert next_problem_at(pool.board, LIMITS, 0.0) == math.inf


def test_a_zygote_that_loads_again():
    """Workers serve; none can be replaced until it is ready, and it has a deadline."""
    pool = Pool().serve()
    pool.wait(10)
    pool.feed(ev.ZygoteExited(1, "killed by SIGKILL"))
    (line,) = found(pool)
    assert line.startswith("the zygote was lost; another has been loading the application since T")
    assert line.endswith(f"; given up at T{pool.now + LIMITS.start:g}")


def test_a_pool_that_is_too_small():
    """Since when all are busy, how many wait, and whether that will help itself."""
    pool = Pool().serve()
    busy = ev.PoolObserved(frozenset({1, 2}), 2, 7)
    pool.feed(busy)
    since = pool.now
    pool.wait(3)
    pool.feed(busy)
    (line,) = found(pool)
    assert line.startswith(f"all workers have been busy since T{since:g} and 7 connections wait; ")
    assert line.endswith("the pool has 2 workers and does not grow (workers.count)")


def test_health_is_patient_and_ends():
    """A pool without a serving worker is healthy for as long as a start may take, not for ever."""
    pool = Pool().serve()
    assert healthy(pool.board, LIMITS, pool.now + 10_000)
    pool.wait(10)
    pool.feed(ev.WorkerExited(1, "x"), ev.WorkerExited(2, "x"))
    assert healthy(pool.board, LIMITS, pool.now + LIMITS.start)
    assert not healthy(pool.board, LIMITS, pool.now + 1000)


# --- on rows made by hand, with the time at each side of a bound -----------------------------------

W, Z = WorkerState, ZygoteState


def listed(*rows, demand=None, limits=LIMITS, now=NOW):
    """Return the problems of a pool with these rows."""
    board = scoreboard(*rows)
    board.demand = demand or board.demand
    return problems(board, limits, now, lambda when: f"T{when:g}")


def test_a_pool_without_a_current_generation_has_no_problems_yet():
    """The start itself is reported where it fails; a stop has a status of its own."""
    assert listed(GenerationRow(1, Role.CANDIDATE, 100.0)) == []
    board = scoreboard(worker_row(stopped_at=1.0))
    assert problems(board, LIMITS, NOW, str)
    board.apply(ev.StopRequested(), NOW)
    assert problems(board, LIMITS, NOW, str) == []


@pytest.mark.parametrize(
    ("retry_at", "listed_as"),
    [(NOW + 1, "3 consecutive start failures"), (NOW, "the last start failed at T499")],
)
def test_failed_starts_are_listed_with_the_next_attempt_or_the_last_one(retry_at, listed_as):
    """The next attempt while it is waited for; the last one as long as workers are missing."""
    streak = FailureStreak(failed_starts=2, short_lives=1, last=NOW - 1, retry_at=retry_at)
    failure = Failure(Blame.APPLICATION, "no database")
    current = GenerationRow(1, Role.CURRENT, 100.0, failure_streak=streak, failure=failure)
    rows = [zygote_row(), serving(1), serving(2)]
    (line,) = [line for line in listed(current, *rows[:2]) if "no database" in line]
    assert line.startswith(listed_as)
    assert line.endswith(": no database")
    enough = [line for line in listed(current, *rows) if "no database" in line]
    assert bool(enough) == (retry_at > NOW)


def test_lives_that_are_too_short_are_listed_without_a_failure():
    """No start has failed; what ends are workers in service. Without a delay nothing is listed."""
    rows = [zygote_row(), serving(1), serving(2)]
    streak = FailureStreak(short_lives=7, last=NOW - 1, retry_at=NOW + 1)
    (line,) = listed(GenerationRow(1, Role.CURRENT, 100.0, failure_streak=streak), *rows)
    assert line.startswith("7 consecutive start failures, ")
    assert line.endswith(": workers end soon after their start")
    calm = replace(streak, short_lives=0)
    assert listed(GenerationRow(1, Role.CURRENT, 100.0, failure_streak=calm), *rows) == []


@pytest.mark.parametrize(
    ("fields", "after", "words"),
    [
        ({"state": W.FORKING}, 5.0, ["has not forked worker 3", "at T100", "at T125"]),
        ({"state": W.STARTING}, 5.0, ["worker 3 has been starting", "T100", "at T125"]),
        ({"state": W.RETIRING}, 4.0, ["worker 3", "since T110", "at T122"]),
    ],
)
def test_a_worker_is_listed_after_a_third_of_its_time(fields, after, words):
    """With when it began and when it is killed; a third of boot or drain, and exactly then."""
    limits = Limits(floor=2, target=2, maximum=2, surge=2, boot=15.0, drain=12.0)
    rows = [zygote_row(), serving(1), serving(2), worker_row(3, **fields)]
    due = 110.0 + after
    assert listed(*rows, limits=limits, now=due - 0.01) == []
    assert next_problem_at(scoreboard(*rows), limits, due - 0.01) == due
    (line,) = listed(*rows, limits=limits, now=due)
    assert [word for word in words if word not in line] == []
    assert next_problem_at(scoreboard(*rows), limits, due) == math.inf


def test_a_start_is_listed_after_two_seconds_at_the_earliest():
    """A third of a short boot time would be sooner."""
    limits = Limits(floor=2, target=2, maximum=2, surge=2, boot=3.0)
    rows = [zygote_row(), serving(1), serving(2), worker_row(3, state=W.STARTING)]
    assert listed(*rows, limits=limits, now=111.99) == []
    assert len(listed(*rows, limits=limits, now=112.0)) == 1


def test_a_killed_worker_is_not_listed_and_a_stopped_one_once():
    """However long ago it began to leave."""
    rows = [zygote_row(), serving(1), serving(2)]
    assert listed(*rows, worker_row(3, state=W.KILLED, stopped_at=1.0)) == []
    (line,) = listed(*rows, worker_row(3, state=W.RETIRING, stopped_at=NOW - 1))
    assert "stopped" in line
    assert f"T{NOW - 1 + LIMITS.stopped:g}" in line


def test_the_next_problem_is_the_first_of_those_to_come():
    """Before the first promotion there is none; a service that is stopping has none either."""
    rows = [
        zygote_row(),
        worker_row(1, state=W.RETIRING),
        worker_row(2, state=W.RETIRING, since=109.0),
    ]
    assert next_problem_at(scoreboard(*rows), LIMITS, 100.0) == 109.0 + LIMITS.drain / 3
    first = GenerationRow(1, Role.CANDIDATE, 100.0)
    assert next_problem_at(scoreboard(first, *rows), LIMITS, 100.0) == math.inf
    assert next_problem_at(scoreboard(), LIMITS, 100.0) == math.inf


def test_the_zygotes_problems():
    """That it is stopped, or loads again; one that is forked from a worker loads nothing."""
    rows = [serving(1), serving(2)]
    (line,) = listed(*rows, zygote_row(stopped_at=NOW - 1))
    assert f"T{NOW - 1:g}" in line
    assert f"T{NOW - 1 + LIMITS.stopped:g}" in line
    (line,) = listed(*rows, zygote_row(state=Z.LOADING, since=NOW))
    assert f"T{NOW:g}" in line
    assert f"T{NOW + LIMITS.start:g}" in line
    assert listed(*rows, zygote_row(state=Z.LOADING, parent=2)) == []
    assert listed(*rows, zygote_row()) == listed(*rows) == []


def test_a_shortage_begins_when_as_many_were_first_wanted():
    """What an elastic pool, or a reload, has been asked for since; with those that are starting."""
    rows = [zygote_row(), serving(1), worker_row(2, state=W.STARTING, since=NOW)]
    board = scoreboard(*rows)
    board.fewer_since = {2: NOW - 5}
    board.demand = Demand(grown_at=NOW - 3)
    (line,) = problems(board, LIMITS, NOW, lambda when: f"T{when:g}")
    assert line == f"only 1 of 2 workers serve since T{NOW - 3:g}; 1 is starting"
    board.fewer_since = {}
    board.demand = Demand()
    (line,) = problems(board, LIMITS, NOW, lambda when: f"T{when:g}")
    assert line == "only 1 of 2 workers serve since T100; 1 is starting"


@pytest.mark.parametrize(
    ("maximum", "size", "end"),
    [
        (8, 0, "; the pool grows up to 8 workers"),
        (8, 7, "; the pool grows up to 8 workers"),
        (8, 8, "; the pool has 8 workers and does not grow (workers.max)"),
        (2, 0, "; the pool has 2 workers and does not grow (workers.count)"),
    ],
)
def test_waiting_connections_are_listed_after_two_seconds(maximum, size, end):
    """And whether the pool can grow for them."""
    limits = Limits(floor=2, target=2, maximum=maximum, surge=2)
    rows = [zygote_row(), serving(1), serving(2)]
    demand = Demand(size=size, sample=ev.PoolObserved(waiting=7), waiting_since=NOW - 2.0)
    assert listed(*rows, demand=demand, limits=limits, now=NOW - 0.01) == []
    (line,) = listed(*rows, demand=demand, limits=limits)
    assert line == f"all workers have been busy since T{NOW - 2:g} and 7 connections wait{end}"


def test_a_pool_is_unhealthy_when_a_start_has_taken_too_long():
    """`start` and half a minute after the last worker was lost, and `boot` more while one is coming."""
    limits = Limits(floor=2, target=2, maximum=2, surge=2, start=60.0, boot=10.0)
    board = scoreboard(zygote_row())
    board.serving_lost_at = NOW
    assert healthy(board, limits, NOW + 89.99)
    assert not healthy(board, limits, NOW + 90.0)
    board.workers[1] = worker_row(state=W.FORKING)
    assert healthy(board, limits, NOW + 99.99)
    assert not healthy(board, limits, NOW + 100.0)
    board.apply(ev.StopRequested(), NOW)
    assert healthy(board, limits, NOW + 1000.0)
    board = scoreboard(GenerationRow(1, Role.CANDIDATE, 100.0))
    board.serving_lost_at = NOW
    assert healthy(board, limits, NOW + 1000.0)


@pytest.mark.parametrize(
    ("rows", "size", "line"),
    [
        ([serving(1)], 2, "1 of 2 workers ready, 0 busy"),
        ([serving(1), serving(2)], 1, "2 workers ready, 1 more than configured, 0 busy"),
        ([worker_row(1)], 1, "0 of 1 workers ready, 0 busy"),
    ],
)
def test_the_line_counts_workers_that_serve(rows, size, line):
    """Those that are more than the size have yet to leave; those that leave are counted by themselves."""
    limits = Limits(floor=size, target=size, maximum=size, surge=2)
    board = scoreboard(*rows)
    assert summary(board, limits, State.SERVING, 0) == f"{line}, generation 1"
    board.workers[9] = worker_row(9, state=W.KILLED)
    assert summary(board, limits, State.SERVING, 0) == f"{line}, generation 1; 1 draining"
    assert "draining" not in summary(board, limits, State.STOPPING, 0)
