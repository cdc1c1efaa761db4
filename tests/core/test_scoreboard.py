"""The scoreboard only writes down, and gossip does not harm it."""

from hypothesis import given, settings, strategies as st

from preforkd.core import events as ev
from preforkd.core.model import Blame, Failure, Role, WorkerState
from preforkd.core.scoreboard import Scoreboard
from tests.core.test_policy import Pool

FAILURE = Failure(Blame.APPLICATION, "x")
NUMBER = st.integers(min_value=-1, max_value=9)
FACTS = st.one_of(
    st.builds(ev.ZygoteSpawned, NUMBER, NUMBER),
    st.builds(ev.ZygoteLoaded, NUMBER),
    st.builds(ev.ZygoteFailed, NUMBER, st.just(FAILURE)),
    st.builds(ev.ZygoteExited, NUMBER, st.just("x")),
    st.builds(ev.WorkerForked, NUMBER, NUMBER),
    st.builds(ev.WorkerReady, NUMBER),
    st.builds(ev.WorkerFailed, NUMBER, st.just(FAILURE)),
    st.builds(ev.WorkerLeaving, NUMBER),
    st.builds(ev.WorkerExited, NUMBER, st.just("x")),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(FACTS, max_size=30))
def test_no_order_of_facts_breaks_it(facts):
    """Facts about anybody, in any order, are written down or ignored, and the policy copes."""
    Pool().serve().tell(*facts)


def test_a_copy_is_independent():
    """What happens to the one does not happen to the other."""
    board = Pool().serve().board
    twin = board.copy()
    twin.apply(ev.WorkerExited(1, "x"), 200.0)
    assert 1 in board.workers
    assert 1 not in twin.workers


def test_generations_without_processes_are_forgotten():
    """The old one goes with its last worker and zygote; the current one stays, empty or not."""
    pool = Pool().serve()
    pool.tell(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    for worker in (3, 4):
        pool.tell(ev.WorkerForked(worker, worker), ev.WorkerReady(worker))
    assert pool.board.generations[1].role is Role.OLD
    pool.tell(ev.WorkerExited(1, "x"), ev.WorkerExited(2, "x"), ev.ZygoteExited(1, "x"))
    assert set(pool.board.generations) == {2}


def test_seats_are_the_lowest_that_are_free():
    """A seat is taken until its worker has ended, however it is dying."""
    board = Scoreboard()
    board.apply(ev.GenerationRequested(1), 0.0)
    for worker in (1, 2, 3):
        board.apply(ev.ForkWorker(worker, board.free_slot(), 1, 1), 0.0)
        board.apply(ev.WorkerForked(worker, 10 + worker), 0.0)
    board.apply(ev.KillWorker(2, "x"), 0.0)
    assert board.workers[2].state is WorkerState.KILLED
    assert board.free_slot() == 4
    board.apply(ev.WorkerExited(2, "x"), 0.0)
    assert board.free_slot() == 2


def test_each_number_of_serving_workers_is_missed_since_its_own_time():
    """What was lost first has been missed longest, until as many serve again; a copy goes on by itself."""
    board = Pool().serve().board
    board.apply(ev.WorkerExited(1, "x"), 200.0)
    twin = board.copy()
    board.apply(ev.WorkerExited(2, "x"), 210.0)
    assert board.fewer_since == {1: 210.0, 2: 200.0}
    assert twin.fewer_since == {2: 200.0}
