"""States and limits."""

import pytest

from preforkd.core.model import ALIVE, BOOTING, Limits, WorkerState


@pytest.mark.parametrize(
    "sizes",
    [
        {"floor": 0},
        {"floor": 3},
        {"target": 9},
        {"surge": 0},
        {"maximum": 4, "spare": 3},
    ],
)
def test_limits_that_contradict_each_other_are_refused(sizes):
    """A mistake in a computation of sizes is found where it is made."""
    with pytest.raises(ValueError, match="contradict"):
        Limits(**{"floor": 2, "target": 2, "maximum": 2, "surge": 1, **sizes})


def test_a_pool_is_elastic_where_its_size_may_change():
    """Between floor and maximum; the spare of a fixed one is without meaning, and allowed."""
    assert Limits(floor=2, target=2, maximum=3, surge=1, spare=2).elastic
    assert not Limits(floor=2, target=2, maximum=2, surge=1, spare=9).elastic


def test_the_workers_that_count_as_alive():
    """Starting and ready workers count, draining and killed ones do not."""
    assert BOOTING < ALIVE
    assert set(WorkerState) - ALIVE == {WorkerState.RETIRING, WorkerState.KILLED}
