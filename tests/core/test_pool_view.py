"""Questions that several rules ask."""

import pytest

from preforkd.core import events as ev
from preforkd.core.model import Limits
from preforkd.core.pool_view import PoolView, size_of, wanted_generations
from preforkd.core.scoreboard import Scoreboard
from tests.core.test_policy import Pool

LIMITS = Limits(floor=2, target=3, maximum=8, surge=8)


@pytest.mark.parametrize(("wanted", "size"), [(0, 3), (5, 5), (1, 2), (100, 8)])
def test_the_size_is_the_wanted_one_within_the_limits(wanted, size):
    """Without one it is the target; changed limits apply at once."""
    board = Scoreboard()
    if wanted:
        board.apply(ev.Resize(wanted, 3, "for the test"), 100.0)
    assert size_of(board, LIMITS) == PoolView(board, LIMITS, 100.0).size == size


def test_who_serves_comes_before_the_candidate():
    """Workers of the current generation are replaced first; what is old gets no more."""
    pool = Pool(LIMITS)
    assert wanted_generations(pool.board) == []
    pool.serve()
    pool.feed(ev.GenerationRequested(2))
    assert [row.generation for row in wanted_generations(pool.board)] == [1, 2]
    pool.board.apply(ev.Promote(2), pool.now)
    assert [row.generation for row in wanted_generations(pool.board)] == [2]
