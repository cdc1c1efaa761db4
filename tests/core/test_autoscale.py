"""An elastic pool: grown on evidence, shrunk slowly; each step by hand."""

from preforkd.core import events as ev
from preforkd.core.demand import WINDOW
from preforkd.core.model import Limits
from tests.core.test_policy import Pool

LIMITS = Limits(floor=2, target=2, maximum=12, surge=12, start=10.0, boot=5.0, drain=3.0)


def full(waiting, *busy, held=0):
    return ev.PoolObserved(frozenset(busy), held, waiting)


def kinds(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


def born(pool, *workers):
    for worker in workers:
        pool.tell(ev.WorkerForked(worker, 20 + worker), ev.WorkerReady(worker))


def test_it_grows_at_the_second_look_that_finds_somebody_waiting():
    """Two, then four, never by more than wait, never above the maximum; workers that come count."""
    pool = Pool(LIMITS).serve()
    assert pool.tell(full(9, 1, 2)) == []
    pool.now += 0.04
    actions = pool.tell(full(9, 1, 2))
    assert actions[0] == ev.Resize(4, 2, "no worker is idle, and 9 connections wait")
    assert len(kinds(actions, ev.ForkWorker)) == 2
    pool.now += 0.04
    assert (
        kinds(pool.tell(full(3, 1, 2)), ev.Resize)[0].size == 5
    )  # two of the three are looked after
    born(pool, 3, 4, 5)
    pool.tell(full(0, 1, 2, 3, 4, 5))
    pool.now += 0.1
    assert pool.tell(full(50, 1, 2, 3, 4, 5)) == []
    pool.now += 0.1
    assert kinds(pool.tell(full(50, 1, 2, 3, 4, 5)), ev.Resize)[0].size == 12


def test_it_does_not_grow_while_somebody_is_idle_or_starts_fail():
    """A queue beside an idle worker is about to be emptied; more of what does not start helps nobody."""
    pool = Pool(LIMITS).serve()
    for _ in range(5):
        pool.now += 0.04
        assert pool.tell(full(9, 1)) == []
    pool.now += 10
    pool.tell(ev.WorkerExited(2, "x"), ev.WorkerForked(3, 30), ev.WorkerExited(3, "x"))
    for _ in range(3):
        pool.now += 0.04
        assert not kinds(pool.tell(full(9, 1)), ev.Resize)


def test_spare_workers_are_kept_beside_those_that_are_held():
    """Only requests that last count: a hundred short ones need no more workers."""
    limits = Limits(floor=2, target=2, maximum=12, surge=12, spare=2)
    pool = Pool(limits).serve()
    assert pool.tell(full(0, 1, 2)) == []
    pool.now += 0.1
    assert kinds(pool.tell(full(0, 1, 2, held=2)), ev.Resize)[0].size == 4


def test_it_shrinks_slowly_and_by_idle_workers_only():
    """Not before half a minute, then a quarter of what is too much every ten seconds."""
    pool = Pool(LIMITS).serve()
    pool.tell(full(50, 1, 2))
    for _ in range(4):
        pool.now += 0.04
        pool.tell(full(50, 1, 2))
    born(pool, *range(3, 13))
    assert pool.board.serving() == 12
    pool.tell(full(0, *range(1, 8)))
    pool.tell(full(0))
    assert pool.wake_at > pool.now + WINDOW - 1
    assert pool.wait(WINDOW - 1) == []
    pool.now += 10
    actions = pool.tell(full(0, 12, 11))
    assert actions[0].size == 10
    # The youngest that are idle: 12 and 11 are not.
    assert kinds(actions, ev.RetireWorker) == [ev.RetireWorker(10), ev.RetireWorker(9)]
    pool.tell(ev.WorkerExited(10, ""), ev.WorkerExited(9, ""))
    assert pool.wait(5) == []


def test_short_memory_takes_all_that_is_idle_at_once():
    """Down to those that are busy, and never below the floor."""
    pool = Pool(LIMITS).serve()
    pool.tell(full(50, 1, 2))
    pool.now += 0.04
    pool.tell(full(50, 1, 2))
    born(pool, 3, 4)
    pool.tell(full(0, 1, 2, 3))
    assert ev.Resize(3, 4, "memory is short") in pool.tell(ev.MemoryShort())
    assert pool.tell(ev.MemoryShort()) == [ev.Resize(3, 3, "memory is short")]
