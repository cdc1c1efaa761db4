"""What looks at the pool leave behind."""

from preforkd.core.demand import BUCKET, CALM, FIRST_STEP, WINDOW, Demand, expiry
from preforkd.core.events import PoolObserved

BUSY = PoolObserved(busy=frozenset({1, 2}), waiting=5)


def test_waiting_begins_when_nobody_is_idle():
    """A queue that idle workers are about to empty is no evidence."""
    demand = Demand().after_look(BUSY, 1, 10.0)
    assert demand.waiting_since is None
    demand = demand.after_look(BUSY, 0, 11.0)
    assert demand.after_look(BUSY, 0, 12.0).waiting_since == 11.0
    assert demand.after_look(PoolObserved(), 2, 12.0).waiting_since is None


def test_a_pool_that_grows_counts_its_newborn_workers_once():
    """While it grows, an idle worker answers for one of those who wait; later, for all of them."""
    demand = Demand().after_look(BUSY, 0, 11.0).resized(4, 2, 11.1)
    assert demand.after_look(BUSY, 4, 11.2).waiting_since == 11.0
    assert demand.after_look(BUSY, 5, 11.2).waiting_since is None
    assert demand.after_look(BUSY, 4, 11.2 + CALM).waiting_since is None


def test_peaks_are_kept_by_stretches_and_forgotten():
    """One number for each stretch of time; what is older than the window does not count."""
    demand = Demand()
    for second in range(20):
        demand = demand.after_look(BUSY, 0, 100.0 + second)
    assert [count for _, count in demand.peaks] == [2] * 4
    assert [start for start, _ in demand.peaks] == [100.0, 105.0, 110.0, 115.0]
    later = demand.after_look(PoolObserved(), 2, 100.0 + BUCKET + WINDOW)
    assert later.peaks[0][0] == 105.0
    assert expiry(later.peaks[0]) == 105.0 + BUCKET + WINDOW


def test_steps_double_while_the_pool_grows_and_begin_anew():
    """Two, four, eight; two again after a calm."""
    demand = Demand()
    steps = []
    for turn in range(3):
        steps.append(demand.step)
        demand = demand.resized(10 + turn, 9 + turn, 1.0 + turn / 10)
    assert steps == [FIRST_STEP, 2 * FIRST_STEP, 4 * FIRST_STEP]
    assert demand.after_look(BUSY, 0, 1.2 + CALM / 2).step == 8 * FIRST_STEP
    assert demand.after_look(BUSY, 0, 1.3 + CALM).step == FIRST_STEP
