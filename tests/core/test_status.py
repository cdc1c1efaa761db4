"""The pool in words."""

import math

from preforkd.core import events as ev
from preforkd.core.lifecycle import State
from preforkd.core.model import Blame, Failure
from preforkd.core.status import healthy, next_problem_at, problems, summary
from tests.core.test_policy import LIMITS, Pool


def test_the_line_tells_the_truth():
    """At the start, in service, during a reload, while draining, at the stop."""
    pool = Pool()
    pool.tell(ev.GenerationRequested(1))
    line = summary(pool.board, LIMITS, State.STARTING, 0)
    assert line == "starting: 0 of 2 workers ready, 0 busy, generation 1"
    pool = Pool().serve()
    assert (
        summary(pool.board, LIMITS, State.SERVING, 1)
        == "2 of 2 workers ready, 1 busy, generation 1"
    )
    pool.tell(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    pool.tell(ev.WorkerForked(3, 23), ev.WorkerReady(3))
    assert "reloading: 1 workers of generation 2 ready" in summary(
        pool.board, LIMITS, State.RELOADING, 0
    )
    pool.tell(ev.WorkerForked(4, 24), ev.WorkerReady(4))
    assert summary(pool.board, LIMITS, State.SERVING, 0).endswith("generation 2; 2 draining")
    pool.tell(ev.StopRequested())
    assert summary(pool.board, LIMITS, State.STOPPING, 3) == "stopping: 4 workers left, 3 busy"


def said(pool):
    """Return the problems; times are seconds since the test's beginning."""
    return problems(pool.board, LIMITS, pool.now, lambda when: f"T{when:g}")


def test_too_few_workers():
    """How many, since when, and whether others are starting; the gravest first, with the next try."""
    pool = Pool().serve()
    assert said(pool) == []
    start = pool.now
    pool.wait(10)
    pool.tell(ev.WorkerExited(1, "killed by SIGKILL"))
    assert said(pool) == [f"only 1 of 2 workers serve, since T{start + 10:g}; 1 is starting"]
    pool.wait(1)
    pool.tell(ev.WorkerExited(2, "killed by SIGKILL"), ev.WorkerForked(3, 30))
    queue = "connections wait in the kernel's queue"
    assert said(pool) == [f"no worker serves, since T{start + 11:g}; {queue}; 2 are starting"]
    pool.tell(ev.WorkerFailed(3, Failure(Blame.APPLICATION, "no database")))
    first, second = said(pool)
    assert first.startswith("no worker serves")
    when = f"the last at T{pool.now:g}, the next is at T{pool.now + 0.25:g}"
    assert second == f"starts failed 1 times, {when}: no database"


def test_a_shortage_begins_where_the_number_fell():
    """Later losses and other starts do not change since when there are too few."""
    pool = Pool().serve()
    pool.wait(10)
    pool.tell(ev.WorkerExited(1, "x"))
    lost = pool.now
    pool.wait(1)
    pool.tell(ev.WorkerExited(2, "x"))
    pool.wait(1)
    pool.tell(ev.WorkerForked(3, 30), ev.WorkerReady(3))
    assert said(pool)[0].startswith(f"only 1 of 2 workers serve, since T{lost:g}")
    pool.tell(ev.WorkerForked(4, 31), ev.WorkerReady(4))
    assert said(pool) == []
    assert pool.board.fewer_since == {}


def test_troubles_of_one_worker():
    """One that is stopped, one that hangs at its start, one that does not leave: and when it is killed."""
    pool = Pool().serve()
    pool.wait(10)
    pool.tell(ev.WorkerStopped(1, True))
    end = f"T{pool.now + LIMITS.stopped:g}"
    stopped = f"worker 1 was stopped by a signal at T{pool.now:g}, and is killed at {end}"
    assert said(pool) == [f"{stopped} unless it goes on"]
    pool.tell(ev.WorkerStopped(1, False), ev.WorkerLeaving(2), ev.WorkerForked(3, 30))
    left = pool.now
    assert all("worker" not in line.partition(" ")[0] for line in said(pool))
    pool.wait(LIMITS.drain / 3)
    end = f"T{left + LIMITS.drain:g}"
    line = f"worker 2 was told to leave at T{left:g} and is busy still; it is killed at {end}"
    assert line in said(pool)
    pool.wait(LIMITS.boot / 2 - LIMITS.drain / 3)
    line = f"worker 3 has been starting since T{left:g}, and is killed at T{left + LIMITS.boot:g}"
    assert line in said(pool)


def test_the_next_problem_is_known_beforehand():
    """What comes by the passing of time alone is said at its moment, not when something else happens."""
    pool = Pool().serve()
    assert next_problem_at(pool.board, LIMITS, pool.now) == math.inf
    pool.tell(ev.WorkerExited(1, "killed by SIGKILL"), ev.WorkerForked(3, 30))
    pool.wait(0.5)
    pool.tell(ev.WorkerSpent(2, "it has answered enough"))
    moments = []
    while (moment := next_problem_at(pool.board, LIMITS, pool.now)) < math.inf:
        before = said(pool)
        pool.now = moment - 0.001
        assert said(pool) == before
        pool.now = moment
        assert len(said(pool)) > len(before)
        moments.append(moment)
    assert moments
    pool.tell(ev.StopRequested())
    assert next_problem_at(pool.board, LIMITS, 0.0) == math.inf


def test_a_zygote_that_loads_again():
    """Workers serve; nobody is replaced until it is there, and it has a deadline."""
    pool = Pool().serve()
    pool.wait(10)
    pool.tell(ev.ZygoteExited(1, "killed by SIGKILL"))
    (line,) = said(pool)
    assert line.startswith("the zygote was lost, and another loads the application since T")
    assert f"at T{pool.now + LIMITS.start:g} it is given up" in line


def test_a_pool_that_is_too_small():
    """Since when all are busy, how many wait, and whether that will help itself."""
    pool = Pool().serve()
    busy = ev.PoolObserved(frozenset({1, 2}), 2, 7)
    pool.tell(busy)
    since = pool.now
    pool.wait(3)
    pool.tell(busy)
    (line,) = said(pool)
    assert line.startswith(f"all workers have been busy since T{since:g}, and 7 connections wait; ")
    assert line.endswith("its size of 2 is reached, so they wait until a request ends")


def test_health_is_patient_and_ends():
    """A pool without a serving worker is healthy for as long as a start may take, not for ever."""
    pool = Pool().serve()
    assert healthy(pool.board, LIMITS, pool.now + 10_000)
    pool.wait(10)
    pool.tell(ev.WorkerExited(1, "x"), ev.WorkerExited(2, "x"))
    assert healthy(pool.board, LIMITS, pool.now + LIMITS.start)
    assert not healthy(pool.board, LIMITS, pool.now + 1000)
