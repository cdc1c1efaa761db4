"""An elastic pool: grown on evidence, shrunk slowly; each step by hand."""

import pytest
from msgspec.structs import replace

from preforkd.core import autoscale, events as ev
from preforkd.core.backoff import FailureStreak
from preforkd.core.demand import WINDOW, Demand
from preforkd.core.model import Limits, Role, WorkerState
from preforkd.core.pool_view import PoolView
from preforkd.core.rows import GenerationRow
from tests.core.rows import NOW, scoreboard, serving, worker_row, zygote_row
from tests.core.test_policy import Pool

LIMITS = Limits(floor=2, target=2, maximum=12, surge=12, start=10.0, boot=5.0, drain=3.0)


def full(waiting, *busy, long_busy=0):
    return ev.PoolObserved(frozenset(busy), long_busy, waiting)


def kinds(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


def born(pool, *workers):
    for worker in workers:
        pool.feed(ev.WorkerForked(worker, 20 + worker), ev.WorkerReady(worker))


def test_it_grows_at_the_second_look_that_finds_somebody_waiting():
    """Two, then four, never by more than wait, never above the maximum; workers that come count."""
    pool = Pool(LIMITS).serve()
    assert pool.feed(full(9, 1, 2)) == []
    pool.now += 0.04
    actions = pool.feed(full(9, 1, 2))
    assert actions[0] == ev.Resize(4, 2, "no worker is idle and 9 connections wait")
    assert len(kinds(actions, ev.ForkWorker)) == 2
    pool.now += 0.04
    assert (
        kinds(pool.feed(full(3, 1, 2)), ev.Resize)[0].size == 5
    )  # two of the three are looked after
    born(pool, 3, 4, 5)
    pool.feed(full(0, 1, 2, 3, 4, 5))
    pool.now += 0.1
    assert pool.feed(full(50, 1, 2, 3, 4, 5)) == []
    pool.now += 0.1
    assert kinds(pool.feed(full(50, 1, 2, 3, 4, 5)), ev.Resize)[0].size == 12


def test_it_does_not_grow_while_a_worker_is_idle_or_starts_fail():
    """An idle worker is about to empty the queue; more workers are of no use while starts fail."""
    pool = Pool(LIMITS).serve()
    for _ in range(5):
        pool.now += 0.04
        assert pool.feed(full(9, 1)) == []
    pool.now += 10
    pool.feed(ev.WorkerExited(2, "x"), ev.WorkerForked(3, 30), ev.WorkerExited(3, "x"))
    for _ in range(3):
        pool.now += 0.04
        assert not kinds(pool.feed(full(9, 1)), ev.Resize)


def test_spare_workers_are_kept_beside_those_that_are_held():
    """Only requests that last count: a hundred short ones need no more workers."""
    limits = Limits(floor=2, target=2, maximum=12, surge=12, spare=2)
    pool = Pool(limits).serve()
    assert pool.feed(full(0, 1, 2)) == []
    pool.now += 0.1
    assert kinds(pool.feed(full(0, 1, 2, long_busy=2)), ev.Resize)[0].size == 4


def test_it_shrinks_slowly_and_by_idle_workers_only():
    """Not before half a minute, then a quarter of what is too much every ten seconds."""
    pool = Pool(LIMITS).serve()
    pool.feed(full(50, 1, 2))
    for _ in range(4):
        pool.now += 0.04
        pool.feed(full(50, 1, 2))
    born(pool, *range(3, 13))
    assert pool.board.serving() == 12
    pool.feed(full(0, *range(1, 8)))
    pool.feed(full(0))
    assert pool.wake_at > pool.now + WINDOW - 1
    assert pool.wait(WINDOW - 1) == []
    pool.now += 10
    actions = pool.feed(full(0, 12, 11))
    assert actions[0].size == 10
    # The youngest that are idle: 12 and 11 are not.
    assert kinds(actions, ev.RetireWorker) == [ev.RetireWorker(10), ev.RetireWorker(9)]
    pool.feed(ev.WorkerExited(10, ""), ev.WorkerExited(9, ""))
    assert pool.wait(5) == []


def test_short_memory_takes_all_that_is_idle_at_once():
    """Down to those that are busy, and never below the floor."""
    pool = Pool(LIMITS).serve()
    pool.feed(full(50, 1, 2))
    pool.now += 0.04
    pool.feed(full(50, 1, 2))
    born(pool, 3, 4)
    pool.feed(full(0, 1, 2, 3))
    assert ev.Resize(3, 4, "memory is short") in pool.feed(ev.MemoryShort())
    assert pool.feed(ev.MemoryShort()) == [ev.Resize(3, 3, "memory is short")]


# --- each rule by itself, with values at each side of a bound --------------------------------------


def view(demand, *rows, limits=LIMITS, size=4):
    """Return a pool of four workers and this demand, as the rules see it."""
    board = scoreboard(zygote_row(), *(serving(worker) for worker in (1, 2, 3, 4)), *rows)
    board.demand = replace(demand, size=size)
    return PoolView(board, limits, NOW)


WAITED = Demand(sample=full(9, 1, 2, 3, 4), sampled_at=NOW, waiting_since=NOW - 1.0)


def grown(size, waiting):
    return ev.Resize(size, 4, f"no worker is idle and {waiting} connections wait")


GROWN = grown(6, 9)


@pytest.mark.parametrize(
    ("demand", "resize"),
    [
        (WAITED, GROWN),
        (replace(WAITED, step=8), grown(12, 9)),
        (replace(WAITED, step=4, sample=full(3, 1, 2, 3, 4)), grown(7, 3)),
        (replace(WAITED, step=16, sample=full(50, 1)), grown(12, 50)),
        (replace(WAITED, sample=full(1, 1, 2, 3, 4)), grown(5, 1)),
        # One look that found connections waiting is no evidence; nor is a look before the last growth.
        (replace(WAITED, waiting_since=NOW), None),
        (replace(WAITED, waiting_since=None), None),
        (replace(WAITED, grown_at=NOW), None),
        (replace(WAITED, grown_at=NOW - 0.01), GROWN),
    ],
)  # fmt: skip
def test_a_pool_grows_by_a_step_and_never_by_more_than_wait(demand, resize):
    """Within the maximum, on two looks in a row."""
    assert list(autoscale.grow(view(demand))) == ([resize] if resize else [])


def test_workers_that_are_coming_are_subtracted_from_those_that_are_needed():
    """One of nine is looked after already; with all nine coming, no more are needed."""
    coming = [worker_row(worker, state=WorkerState.STARTING) for worker in range(5, 14)]
    demand = replace(WAITED, step=16)
    for count, size in ((0, 13), (1, 12), (8, 5)):
        limits = replace(LIMITS, maximum=20)
        (resize,) = autoscale.grow(view(demand, *coming[:count], limits=limits))
        assert resize.size == size
    assert not list(autoscale.grow(view(demand, *coming)))


@pytest.mark.parametrize(
    ("held", "spare", "size"),
    [(3, 1, None), (3, 2, 5), (4, 2, 6), (0, 2, None), (9, 0, None), (11, 2, 12)],
)
def test_spare_workers_are_added_to_those_that_are_busy_for_long(held, spare, size):
    """Up to the maximum; none is added where no worker is busy for long."""
    demand = Demand(sample=full(0, 1, 2, long_busy=held), sampled_at=NOW)
    limits = replace(LIMITS, spare=spare)
    reason = f"{held} workers have long requests and workers.spare is {spare}"
    expected = [ev.Resize(size, 4, reason)] if size else []
    assert list(autoscale.grow(view(demand, limits=limits))) == expected


def test_a_pool_does_not_grow_at_its_maximum_before_a_promotion_or_while_starts_fail():
    """Starts are delayed until a time; exactly then it may grow again."""
    at_most = replace(LIMITS, maximum=4)
    assert not list(autoscale.grow(view(WAITED, limits=at_most)))
    assert not list(autoscale.grow(view(WAITED, GenerationRow(1, Role.CANDIDATE, 100.0))))
    for retry_at, actions in ((NOW + 0.01, []), (NOW, [GROWN])):
        streak = FailureStreak(failed_starts=1, retry_at=retry_at)
        current = GenerationRow(1, Role.CURRENT, 100.0, failure_streak=streak)
        assert list(autoscale.grow(view(WAITED, current))) == actions


@pytest.mark.parametrize(
    ("busy", "floor", "size"),
    [((1, 2, 3), 2, 3), ((1,), 2, 2), ((1, 2, 3, 4, 5), 2, 4), ((), 3, 3)],
)
def test_short_memory_leaves_the_busy_and_the_floor(busy, floor, size):
    """And never makes a pool larger; a pool of a fixed size, or none at all, is left alone."""
    demand = Demand(sample=full(0, *busy), memory_short=True)
    limits = replace(LIMITS, floor=floor, target=floor)
    assert list(autoscale.shrink_to_busy(view(demand, limits=limits))) == [
        ev.Resize(size, 4, "memory is short")
    ]
    fixed = replace(limits, floor=4, target=4, maximum=4)
    assert not list(autoscale.shrink_to_busy(view(demand, limits=fixed)))
    assert not list(
        autoscale.shrink_to_busy(view(replace(demand, memory_short=False), limits=limits))
    )
    candidate = GenerationRow(1, Role.CANDIDATE, 100.0)
    assert not list(autoscale.shrink_to_busy(view(demand, candidate, limits=limits)))


@pytest.mark.parametrize(
    ("demand", "due"),
    [
        (Demand(grown_at=300.0), 330.0),
        (Demand(grown_at=300.0, shrunk_at=325.0), 335.0),
        # A peak as high as the size keeps the pool as it is; a lower one does not.
        (Demand(peaks=((300.0, 4),)), 335.0),
        (Demand(grown_at=300.0, peaks=((300.0, 3),)), 330.0),
        (Demand(peaks=((300.0, 4), (302.0, 5), (304.0, 1))), 337.0),
    ],
)
def test_when_a_pool_may_shrink(demand, due):
    """Half a minute after it grew, ten seconds after it shrank, and when its peaks are forgotten."""
    assert autoscale.shrink_due(view(demand)) == due


def test_a_pool_does_not_shrink_below_its_floor_or_during_a_reload():
    """There is no time at which it may; a peak with its spare workers counts in full."""
    assert autoscale.shrink_due(view(Demand(), size=2)) is None
    assert autoscale.shrink_due(view(Demand(), size=3)) is not None
    assert autoscale.shrink_due(view(Demand(), GenerationRow(1, Role.CANDIDATE, 1.0))) is None
    assert autoscale.shrink_due(view(Demand(), GenerationRow(2, Role.CANDIDATE, 1.0))) is None
    spare = replace(LIMITS, spare=1)
    assert autoscale.shrink_due(view(Demand(peaks=((300.0, 3),)), limits=spare)) == 335.0
    assert autoscale.shrink_due(view(Demand(peaks=((300.0, 2),)), limits=spare)) < 0


@pytest.mark.parametrize(
    ("demand", "size", "shrunk"),
    [
        # A quarter of what is too much, and at least one.
        (Demand(), 12, 10),
        (Demand(), 4, 3),
        (Demand(grown_at=NOW - WINDOW), 4, 3),
        (Demand(grown_at=NOW - WINDOW + 0.01), 4, None),
        # A peak counts until it is forgotten.
        (Demand(peaks=((NOW - 34.99, 3),)), 4, 3),
        (Demand(peaks=((NOW - 34.99, 3),)), 11, 9),
        (Demand(peaks=((NOW - 35.0, 7),)), 11, 9),
        (Demand(peaks=((NOW - 34.99, 7),)), 11, 10),
    ],
)
def test_how_far_a_pool_shrinks(demand, size, shrunk):
    """Towards the most that were busy in the last half a minute, in steps."""
    least = max([2, *(most for when, most in demand.peaks if when > NOW - 35.0)])
    reason = f"{least} workers were enough for 30 s"
    expected = [ev.Resize(shrunk, size, reason)] if shrunk else []
    assert list(autoscale.shrink(view(demand, size=size))) == expected
