"""The demand, after samples."""

import math

import pytest

from preforkd.core.demand import BUCKET, FIRST_STEP, GROWTH_PERIOD, WINDOW, Demand, expiry
from preforkd.core.events import PoolObserved

BUSY = PoolObserved(busy=frozenset({1, 2}), waiting=5)


def test_waiting_begins_when_no_worker_is_idle():
    """A queue that idle workers are about to empty is no evidence."""
    demand = Demand().after_sample(BUSY, 1, 10.0)
    assert demand.waiting_since is None
    demand = demand.after_sample(BUSY, 0, 11.0)
    assert demand.after_sample(BUSY, 0, 12.0).waiting_since == 11.0
    assert demand.after_sample(PoolObserved(), 2, 12.0).waiting_since is None


def test_a_pool_that_grows_counts_its_newborn_workers_once():
    """While it grows, an idle worker stands for one waiting connection; later, for all of them."""
    demand = Demand().after_sample(BUSY, 0, 11.0).resized(4, 2, 11.1)
    assert demand.after_sample(BUSY, 4, 11.2).waiting_since == 11.0
    assert demand.after_sample(BUSY, 5, 11.2).waiting_since is None
    assert demand.after_sample(BUSY, 4, 11.2 + GROWTH_PERIOD).waiting_since is None


def test_peaks_are_kept_by_stretches_and_forgotten():
    """One number for each stretch of time; what is older than the window does not count."""
    demand = Demand()
    for second in range(20):
        demand = demand.after_sample(BUSY, 0, 100.0 + second)
    assert [count for _, count in demand.peaks] == [2] * 4
    assert [start for start, _ in demand.peaks] == [100.0, 105.0, 110.0, 115.0]
    later = demand.after_sample(PoolObserved(), 2, 100.0 + BUCKET + WINDOW)
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
    assert demand.after_sample(BUSY, 0, 1.2 + GROWTH_PERIOD / 2).step == 8 * FIRST_STEP
    assert demand.after_sample(BUSY, 0, 1.3 + GROWTH_PERIOD).step == FIRST_STEP


def test_a_sample_is_kept_with_its_time():
    """The last one: what is busy and what waits is read from it."""
    demand = Demand().after_sample(BUSY, 0, 10.0)
    assert (demand.sample, demand.sampled_at, demand.waiting_since) == (BUSY, 10.0, 10.0)
    calm = demand.after_sample(PoolObserved(busy=frozenset({1})), 0, 11.0)
    assert (calm.sampled_at, calm.waiting_since) == (11.0, None)


@pytest.mark.parametrize(
    ("size", "grown", "shrunk"), [(5, 50.0, 1.0), (4, 0.0, 50.0), (3, 0.0, 50.0)]
)
def test_a_new_size_is_a_growth_or_else_counts_as_a_shrinking(size, grown, shrunk):
    """From four workers: five are more; four again are the answer to short memory, as three are."""
    before = Demand(grown_at=0.0, shrunk_at=1.0, memory_short=True)
    after = before.resized(size, 4, 50.0)
    assert (after.size, after.grown_at, after.shrunk_at) == (size, grown, shrunk)
    assert not after.memory_short
    assert after.step == (2 * FIRST_STEP if size > 4 else FIRST_STEP)


def test_the_time_that_a_peak_is_kept_and_a_growth_is_recent():
    """Exactly at the bounds: five seconds of one stretch, half a minute, a second of growth."""
    assert (BUCKET, WINDOW, GROWTH_PERIOD, FIRST_STEP) == (5.0, 30.0, 1.0, 2)
    one, three = PoolObserved(busy=frozenset({1})), PoolObserved(busy=frozenset({1, 2, 3}))
    demand = (
        Demand()
        .after_sample(one, 0, 100.0)
        .after_sample(three, 0, 104.99)
        .after_sample(one, 0, 105.0)
    )
    assert demand.peaks == ((100.0, 3), (105.0, 1))
    assert demand.after_sample(one, 0, 134.99).peaks[0] == (100.0, 3)
    assert demand.after_sample(one, 0, 135.0).peaks[0] == (105.0, 1)
    assert Demand().after_sample(PoolObserved(), 2, 100.0).peaks == ()
    assert Demand().sampled_at == Demand().grown_at == Demand().shrunk_at == -math.inf
    grown = Demand(grown_at=100.0, step=8)
    assert grown.after_sample(BUSY, 1, 101.0).waiting_since == 101.0
    assert grown.after_sample(BUSY, 1, 101.0).step == 8
    assert grown.after_sample(BUSY, 1, 101.01).waiting_since is None
    assert grown.after_sample(BUSY, 1, 101.01).step == FIRST_STEP


def test_a_pool_begins_without_a_size_of_its_own():
    """The target of its limits counts, and memory is not short."""
    assert (Demand().size, Demand().memory_short) == (0, False)
