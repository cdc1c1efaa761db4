"""The scoreboard records, and messages that are late or invented do it no harm."""

import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import asdict, replace

from preforkd.core import events as ev
from preforkd.core.backoff import SHORT_LIFE, FailureStreak
from preforkd.core.model import Role, WorkerState, ZygoteState
from preforkd.core.rows import GenerationRow, ReforkAttempt, WorkerRow, ZygoteRow
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Blame, Failure
from tests.core.rows import NOW, scoreboard, serving, worker_row, zygote_row
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
    Pool().serve().feed(*facts)


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
    pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    for worker in (3, 4):
        pool.feed(ev.WorkerForked(worker, worker), ev.WorkerReady(worker))
    assert pool.board.generations[1].role is Role.OLD
    pool.feed(ev.WorkerExited(1, "x"), ev.WorkerExited(2, "x"), ev.ZygoteExited(1, "x"))
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


def test_a_number_that_serves_again_is_missed_no_more():
    """Exactly as many as serve; the ones beyond are missed as long as before."""
    board = scoreboard(serving(1), serving(2), serving(3))
    board.apply(ev.MemoryShort(), 100.0)
    for worker, when in ((3, 200.0), (2, 210.0)):
        board.apply(ev.WorkerExited(worker, "x"), when)
    assert board.fewer_since == {2: 210.0, 3: 200.0}
    board.workers[4] = worker_row(4)
    board.apply(ev.ServeWorker(4), 220.0)
    assert board.fewer_since == {3: 200.0}


def test_a_new_scoreboard_numbers_from_one_and_misses_nothing():
    """No number was used, no worker was lost."""
    board = Scoreboard()
    board.apply(ev.GenerationRequested(1), NOW)
    assert (board.last_worker, board.last_zygote, board.fewer_since) == (0, 0, {})


# --- one row, one event, what changes of the row --------------------------------------------------

W, Z = WorkerState, ZygoteState
GONE = None


def changes(rows, number, before):
    """Return the fields that differ from the row before, or None when the row is gone."""
    if number not in rows:
        return GONE
    was, now = asdict(before), asdict(rows[number])
    return {name: now[name] for name in now if now[name] != was[name]}


BORN = {"state": W.STARTING, "since": NOW, "pid": 33}
UP = {"state": W.READY, "since": NOW, "was_ready": True}
RETIRED = {"state": W.RETIRING, "since": NOW, "end_expected": True}


@pytest.mark.parametrize(
    ("before", "event", "changed"),
    [
        # The fork is answered; an answer that arrives late brings no worker back.
        ({"state": W.FORKING, "pid": None}, ev.WorkerForked(1, 33), BORN),
        ({"state": W.STARTING}, ev.WorkerForked(1, 33), {"pid": 33}),
        ({"state": W.RETIRING, "pid": None}, ev.WorkerForked(1, 33), {"pid": 33}),
        ({"state": W.KILLED}, ev.WorkerForked(1, 33), {"pid": 33}),
        # It becomes ready once, and only on its way up.
        ({"state": W.FORKING}, ev.WorkerReady(1), UP),
        ({"state": W.STARTING}, ev.WorkerReady(1), UP),
        ({"state": W.READY}, ev.WorkerReady(1), {}),
        ({"state": W.RETIRING}, ev.WorkerReady(1), {}),
        ({"state": W.KILLED}, ev.WorkerReady(1), {}),
        ({"state": W.STARTING}, ev.WorkerFailed(1, FAILURE), RETIRED),
        ({"state": W.READY}, ev.WorkerFailed(1, FAILURE), {}),
        ({}, ev.ServeWorker(1), {"serving": True}),
        # The first of several retirements counts: its drain begins then.
        ({}, ev.WorkerLeaving(1), RETIRED),
        ({"state": W.STARTING}, ev.WorkerLeaving(1), RETIRED),
        ({"state": W.RETIRING}, ev.WorkerLeaving(1), {}),
        ({"state": W.KILLED}, ev.WorkerLeaving(1), {}),
        ({}, ev.RetireWorker(1), RETIRED),
        ({"state": W.RETIRING}, ev.RetireWorker(1), {}),
        ({"state": W.KILLED}, ev.RetireWorker(1), {}),
        # A worker without a process leaves nothing to wait for.
        ({}, ev.KillWorker(1, "x"), {"state": W.KILLED, "since": NOW, "end_expected": True}),
        ({"state": W.FORKING, "pid": None}, ev.KillWorker(1, "x"), GONE),
        ({}, ev.WorkerExited(1, "x"), GONE),
        # The first limit that it has reached, and the first request that is overdue, are kept.
        ({}, ev.WorkerLimitReached(1, "old"), {"limit_reached": "old"}),
        ({}, ev.RecycleWorker(1, "old"), {"limit_reached": "old"}),
        ({"limit_reached": "heavy"}, ev.WorkerLimitReached(1, "old"), {}),
        ({"state": W.STARTING}, ev.WorkerLimitReached(1, "old"), {}),
        ({"state": W.RETIRING}, ev.WorkerLimitReached(1, "old"), {}),
        ({}, ev.WorkerOverdue(1, "slow"), {"overdue": "slow"}),
        ({"overdue": "first"}, ev.WorkerOverdue(1, "slow"), {}),
        ({"state": W.RETIRING}, ev.WorkerOverdue(1, "slow"), {"overdue": "slow"}),
        ({"state": W.KILLED}, ev.WorkerOverdue(1, "slow"), {}),
        ({"pid": None}, ev.WorkerOverdue(1, "slow"), {}),
        ({"overdue": "x", "dumped_at": 400.0}, ev.WorkerRecovered(1), {"overdue": "", "dumped_at": None}),
        ({}, ev.DumpWorker(1), {"dumped_at": NOW}),
        # Stopped since the first signal.
        ({}, ev.WorkerStopped(1), {"stopped_at": NOW}),
        ({"stopped_at": 400.0}, ev.WorkerStopped(1), {}),
        ({"stopped_at": 400.0}, ev.WorkerStopped(1, stopped=False), {"stopped_at": None}),
    ],
)  # fmt: skip
def test_a_workers_row(before, event, changed):
    """Each event changes these fields of the row and no other."""
    before = worker_row(**before)
    board = scoreboard(replace(before), zygote_row())
    board.apply(event, NOW)
    assert changes(board.workers, 1, before) == changed


@pytest.mark.parametrize(
    ("before", "event", "changed"),
    [
        ({"pid": None, "state": Z.LOADING}, ev.ZygoteSpawned(1, 55), {"pid": 55}),
        ({"state": Z.LOADING}, ev.ZygoteLoaded(1), {"state": Z.READY, "since": NOW}),
        ({"state": Z.READY}, ev.ZygoteLoaded(1), {}),
        ({"state": Z.DISMISSED}, ev.ZygoteLoaded(1), {}),
        # It leaves by itself when it has failed; without a process there is nothing to wait for.
        ({"state": Z.LOADING}, ev.ZygoteFailed(1, FAILURE), {"state": Z.DISMISSED, "since": NOW}),
        ({"state": Z.DISMISSED}, ev.ZygoteFailed(1, FAILURE), {"since": NOW}),
        ({"state": Z.KILLED}, ev.ZygoteFailed(1, FAILURE), {}),
        ({"state": Z.LOADING, "pid": None}, ev.ZygoteFailed(1, FAILURE), GONE),
        ({}, ev.DismissZygote(1), {"state": Z.DISMISSED, "since": NOW}),
        ({}, ev.KillZygote(1, "x"), {"state": Z.KILLED, "since": NOW}),
        ({"pid": None}, ev.KillZygote(1, "x"), GONE),
        ({}, ev.ZygoteExited(1, "x"), GONE),
        ({"state": Z.LOADING}, ev.ZygoteExited(1, "x"), GONE),
        ({}, ev.ZygoteStopped(1), {"stopped_at": NOW}),
        ({"stopped_at": 400.0}, ev.ZygoteStopped(1), {}),
        ({"stopped_at": 400.0}, ev.ZygoteStopped(1, stopped=False), {"stopped_at": None}),
        # One that was forked from worker 9 is the policy's to judge, until it was adopted.
        ({"parent": 9, "state": Z.LOADING}, ev.ZygoteFailed(1, FAILURE), {"failure": FAILURE}),
        ({"parent": 9, "state": Z.KILLED}, ev.ZygoteFailed(1, FAILURE), {}),
        ({"parent": 9, "adopted": True}, ev.ZygoteExited(1, "x"), GONE),
        ({"parent": 9, "state": Z.KILLED}, ev.ZygoteExited(1, "x"), GONE),
        ({"parent": 9}, ev.AdoptZygote(1), {"adopted": True}),
        ({"parent": 9}, ev.GiveUpRefork(1, FAILURE), {"state": Z.KILLED, "since": NOW}),
        ({"parent": 9, "pid": None}, ev.GiveUpRefork(1, FAILURE), GONE),
    ],
)  # fmt: skip
def test_a_zygotes_row(before, event, changed):
    """Each event changes these fields of the row and no other."""
    before = zygote_row(**before)
    board = scoreboard(replace(before))
    board.apply(event, NOW)
    assert changes(board.zygotes, 1, before) == changed


def test_a_zygote_on_trial_that_ends_is_kept_with_its_reason():
    """The policy gives it up; the first reason is the one that is reported."""
    board = scoreboard(zygote_row(parent=9))
    board.apply(ev.ZygoteExited(1, "killed by SIGSEGV"), NOW)
    row = board.zygotes[1]
    assert (row.state, row.pid, row.failure.blame) == (Z.LOADING, None, Blame.APPLICATION)
    assert row.failure.reason.endswith(": killed by SIGSEGV")
    board = scoreboard(zygote_row(parent=9, failure=FAILURE))
    board.apply(ev.ZygoteExited(1, "killed by SIGSEGV"), NOW)
    assert board.zygotes[1].failure is FAILURE


def test_each_answered_fork_gives_the_next_one_its_time():
    """A zygote forks one worker after another; other zygotes' workers and other states are untouched."""
    forking = {"state": W.FORKING, "pid": None}
    board = scoreboard(worker_row(**forking))
    others = {2: {}, 3: {"zygote": 2}, 4: {"state": W.STARTING}}
    for worker, fields in others.items():
        board.workers[worker] = worker_row(worker, **(forking | fields))
    board.apply(ev.WorkerForked(1, 33), NOW)
    assert [board.workers[worker].since for worker in others] == [NOW, 110.0, 110.0]


# --- which ends count as failures -----------------------------------------------------------------

START, SHORT, NO_FAILURE = (1, 0, True), (0, 1, False), (0, 0, False)


@pytest.mark.parametrize(
    ("row", "event", "counted"),
    [
        (worker_row(state=W.STARTING), ev.WorkerExited(1, "x"), START),
        (worker_row(state=W.STARTING), ev.WorkerFailed(1, FAILURE), START),
        (worker_row(state=W.STARTING), ev.KillWorker(1, "late"), START),
        (worker_row(state=W.FORKING), ev.KillWorker(1, "late"), START),
        (worker_row(state=W.RETIRING, end_expected=True), ev.KillWorker(1, "late"), NO_FAILURE),
        (worker_row(state=W.STARTING, end_expected=True), ev.KillWorker(1, "late"), NO_FAILURE),
        (worker_row(state=W.STARTING, end_expected=True), ev.WorkerExited(1, "x"), NO_FAILURE),
        # In service less than a second is short; a second is not.
        (worker_row(was_ready=True, since=NOW - SHORT_LIFE + 0.01), ev.WorkerExited(1, "x"), SHORT),
        (worker_row(was_ready=True, since=NOW - SHORT_LIFE), ev.WorkerExited(1, "x"), NO_FAILURE),
        (zygote_row(state=Z.LOADING), ev.ZygoteFailed(1, FAILURE), START),
        (zygote_row(state=Z.LOADING), ev.ZygoteExited(1, "x"), START),
        (zygote_row(state=Z.LOADING), ev.KillZygote(1, "late"), START),
        (zygote_row(since=NOW - SHORT_LIFE + 0.01), ev.ZygoteExited(1, "x"), (1, 0, False)),
        (zygote_row(since=NOW - SHORT_LIFE), ev.ZygoteExited(1, "x"), NO_FAILURE),
        (zygote_row(), ev.KillZygote(1, "late"), NO_FAILURE),
        (zygote_row(state=Z.DISMISSED), ev.ZygoteExited(1, "x"), NO_FAILURE),
        (zygote_row(state=Z.DISMISSED), ev.ZygoteFailed(1, FAILURE), NO_FAILURE),
        (zygote_row(state=Z.LOADING, parent=9), ev.KillZygote(1, "late"), NO_FAILURE),
    ],
)
def test_what_counts_as_a_failed_start(row, event, counted):
    """Failed starts and short lives of the generation, and whether a candidate is given up for it."""
    board = scoreboard(row)
    board.apply(event, NOW)
    generation = board.generations[1]
    streak = generation.failure_streak
    assert (streak.failed_starts, streak.short_lives, generation.fatal) == counted
    assert (generation.failure is None) == (streak.failed_starts == 0)


def test_a_failure_names_what_ended_and_how():
    """It is what an administrator reads of a start that failed."""
    board = scoreboard(worker_row(state=W.STARTING, slot=7))
    board.apply(ev.WorkerExited(1, "exit status 3"), NOW)
    failure = board.generations[1].failure
    assert failure == Failure(
        Blame.APPLICATION, "worker 7 exited before it was ready: exit status 3"
    )
    for state, doing in ((Z.LOADING, "loading the application"), (Z.READY, "forking")):
        board = scoreboard(zygote_row(state=state, since=NOW))
        board.apply(ev.ZygoteExited(1, "exit status 3"), NOW)
        failure = board.generations[1].failure
        assert failure == Failure(
            Blame.APPLICATION, f"the zygote exited while {doing}: exit status 3"
        )


def test_failures_of_a_zygote_on_trial_are_not_its_generations():
    """Its worker failed: the failure is the zygote's, and the first one is kept."""
    board = scoreboard(zygote_row(parent=9), worker_row(state=W.STARTING))
    board.apply(ev.WorkerFailed(1, FAILURE), NOW)
    assert board.zygotes[1].failure == FAILURE
    assert board.generations[1].failure_streak.failed_starts == 0
    board = scoreboard(zygote_row(parent=9, adopted=True), worker_row(state=W.STARTING))
    board.apply(ev.WorkerFailed(1, FAILURE), NOW)
    assert board.zygotes[1].failure is None
    assert board.generations[1].failure_streak.failed_starts == 1
    board = scoreboard(zygote_row(parent=9, failure=FAILURE), worker_row(state=W.STARTING))
    board.apply(ev.WorkerExited(1, "later"), NOW)
    assert board.zygotes[1].failure is FAILURE


def test_a_worker_killed_by_the_stop_is_no_failure():
    """A service that is stopping counts no failed starts."""
    board = scoreboard(worker_row(state=W.STARTING))
    board.apply(ev.StopRequested(quick=True), NOW)
    board.apply(ev.KillWorker(1, "the service is stopping"), NOW)
    assert board.generations[1].failure_streak.failed_starts == 0


def test_workers_that_were_started_together_fail_once():
    """A worker that was born before the last failure was part of the same attempt."""
    board = scoreboard(worker_row(state=W.STARTING))
    board.workers[2] = worker_row(2, state=W.STARTING)
    board.apply(ev.WorkerExited(1, "x"), NOW)
    board.apply(ev.WorkerExited(2, "x"), NOW + 1)
    assert board.generations[1].failure_streak.failed_starts == 1


def test_a_worker_that_becomes_ready_forgives_failed_starts():
    """The next failed start waits as long as the first one did."""
    board = scoreboard(worker_row(state=W.STARTING))
    board.generations[1].failure_streak = FailureStreak(failed_starts=3, short_lives=2)
    board.apply(ev.WorkerReady(1), NOW)
    streak = board.generations[1].failure_streak
    assert (streak.failed_starts, streak.short_lives) == (0, 2)


# --- generations and the pool as a whole ----------------------------------------------------------


def test_a_promotion_and_an_abandonment():
    """One current generation at a time; a candidate that was given up keeps its failure."""
    board = scoreboard(worker_row())
    board.apply(ev.GenerationRequested(2), NOW)
    assert asdict(board.candidate) == asdict(GenerationRow(2, Role.CANDIDATE, NOW))
    board.apply(ev.SpawnZygote(1, 2), NOW)
    board.apply(ev.Promote(2), NOW)
    assert [row.role for row in board.generations.values()] == [Role.OLD, Role.CURRENT]
    board.apply(ev.GenerationRequested(3), NOW)
    board.apply(ev.SpawnZygote(2, 3), NOW)
    board.apply(ev.Abandon(3, FAILURE), NOW)
    row = board.generations[3]
    assert (row.role, row.failure, row.since) == (Role.ABANDONED, FAILURE, NOW)
    assert board.candidate is None
    board.apply(ev.ZygoteExited(2, "x"), NOW)
    assert set(board.generations) == {1, 2}


def test_the_newest_generation_of_a_role_is_the_one():
    """And workers are counted by generation and state."""
    board = scoreboard(worker_row(), zygote_row())
    board.workers[2] = worker_row(2, generation=2, state=W.STARTING)
    board.generations[2] = GenerationRow(2, Role.CURRENT, 100.0)
    assert board.current.generation == 2
    assert [row.worker for row in board.workers_of(2)] == [2]
    assert board.count(2, frozenset({W.STARTING})) == 1
    assert board.count(2, frozenset({W.READY})) == board.count(1, frozenset({W.STARTING})) == 0


def test_a_generations_usable_zygote():
    """The newest that is ready, else the newest that loads, else none."""
    rows = {1: Z.READY, 2: Z.READY, 3: Z.LOADING, 4: Z.DISMISSED}
    board = scoreboard(*(zygote_row(n, state=rows[n]) for n in rows))
    board.zygotes[5] = zygote_row(5, generation=2)
    assert board.usable_zygote(1).zygote == 2
    del board.zygotes[2], board.zygotes[1]
    assert board.usable_zygote(1).zygote == 3
    del board.zygotes[3]
    assert board.usable_zygote(1) is None


def test_actions_of_birth_make_rows():
    """With the number, the place and the time; the highest number is remembered, not the last."""
    board = scoreboard()
    board.apply(ev.SpawnZygote(5, 1), NOW)
    board.apply(ev.ForkZygote(7, 1, 3), NOW)
    board.apply(ev.ForkWorker(9, 2, 1, 5), NOW)
    assert board.zygotes == {
        5: ZygoteRow(5, 1, Z.LOADING, NOW),
        7: ZygoteRow(7, 1, Z.LOADING, NOW, parent=3),
    }
    assert board.workers == {9: WorkerRow(9, 2, 1, 5, W.FORKING, born=NOW, since=NOW)}
    board.apply(ev.SpawnZygote(6, 1), NOW)
    board.apply(ev.ForkZygote(4, 1, 3), NOW)
    board.apply(ev.ForkWorker(8, 3, 1, 5), NOW)
    assert (board.last_zygote, board.last_worker) == (7, 9)


def test_reforks_that_fail_wait_twice_as_long_each_time():
    """10, 20, 40 … 2560 s; an adoption forgives them, and so does an urgent request."""
    board, waits = scoreboard(), []
    for _ in range(10):
        board.zygotes[1] = zygote_row(parent=9)
        board.apply(ev.GiveUpRefork(1, FAILURE), NOW)
        waits.append(board.current.refork.retry_at - NOW)
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0, 2560.0]
    assert board.current.refork.reason == ""
    board.apply(ev.ReforkRequested(4, "warm"), NOW)
    refork = board.current.refork
    assert (refork.reason, refork.warmest, refork.failures) == ("warm", 4, 10)
    assert refork.retry_at == NOW + 2560.0
    board.apply(ev.ReforkRequested(5, "asked", urgent=True), NOW)
    refork = board.current.refork
    assert (refork.reason, refork.warmest, refork.failures) == ("asked", 5, 10)
    assert refork.retry_at == float("-inf")
    board.apply(ev.AdoptZygote(1), NOW)
    assert board.current.refork == ReforkAttempt()


def test_a_refork_that_is_requested_before_the_first_promotion_is_dropped():
    """There is no generation whose zygote it could be."""
    board = Scoreboard()
    board.apply(ev.GenerationRequested(1), NOW)
    board.apply(ev.ReforkRequested(4, "warm"), NOW)
    assert board.candidate.refork == ReforkAttempt()


def test_idle_workers_are_those_that_serve_and_are_not_busy():
    """Connections wait for nothing but a worker that is ready, serving and not busy."""
    board = scoreboard(serving())
    for worker, fields in {
        2: {"serving": False},
        3: {"serving": True, "state": W.RETIRING},
    }.items():
        board.workers[worker] = worker_row(worker, **fields)
    board.apply(ev.PoolObserved(frozenset(), 0, 5), NOW)
    assert board.demand.waiting_since is None
    board.apply(ev.PoolObserved(frozenset({1}), 0, 5), NOW + 1)
    assert board.demand.waiting_since == NOW + 1
    assert board.demand.sampled_at == NOW + 1


def test_sizes_and_short_memory_are_kept_in_the_demand():
    """Memory is short until the pool was given a size."""
    board = scoreboard()
    board.apply(ev.MemoryShort(), NOW)
    assert board.demand.memory_short
    board.apply(ev.Resize(4, 2, "x"), NOW)
    assert (board.demand.size, board.demand.grown_at, board.demand.memory_short) == (4, NOW, False)


def test_a_quick_stop_stays_quick():
    """A second, gentler request does not take it back."""
    board = scoreboard()
    for quick, result in ((False, False), (True, True), (False, True)):
        board.apply(ev.StopRequested(quick=quick), NOW)
        assert board.stopping == ev.StopRequested(quick=result)
    assert not board.finished
    board.apply(ev.Finish(), NOW)
    assert board.finished


def test_since_when_no_worker_serves():
    """From the last loss until one serves again; before the first promotion the question does not arise."""
    board = Scoreboard()
    board.apply(ev.GenerationRequested(1), NOW)
    assert board.serving_lost_at is None
    board = scoreboard(serving())
    board.apply(ev.WorkerLeaving(1), NOW)
    assert board.serving_lost_at == NOW
    board.apply(ev.WorkerExited(1, "x"), NOW + 1)
    assert board.serving_lost_at == NOW
    board.workers[2] = worker_row(2)
    board.apply(ev.ServeWorker(2), NOW + 2)
    assert board.serving_lost_at is None


@pytest.mark.parametrize(
    "event",
    [
        *(kind(9, 1) for kind in (ev.ZygoteSpawned, ev.WorkerForked)),
        *(kind(9, "x") for kind in (ev.ZygoteExited, ev.WorkerExited, ev.WorkerLimitReached)),
        *(kind(9, "x") for kind in (ev.WorkerOverdue, ev.RecycleWorker, ev.KillWorker)),
        *(kind(9, FAILURE) for kind in (ev.ZygoteFailed, ev.WorkerFailed, ev.GiveUpRefork)),
        *(
            kind(9)
            for kind in (ev.ZygoteLoaded, ev.ZygoteStopped, ev.AdoptZygote, ev.DismissZygote)
        ),
        *(
            kind(9)
            for kind in (ev.WorkerReady, ev.WorkerLeaving, ev.WorkerRecovered, ev.ServeWorker)
        ),
        *(kind(9) for kind in (ev.WorkerStopped, ev.DumpWorker, ev.RetireWorker)),
        ev.KillZygote(9, "x"),
        ev.Abandon(9, FAILURE),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_about_an_unknown_number_changes_nothing(event):
    """What children send arrives late: the row may be gone."""
    board = scoreboard(serving(), zygote_row())
    board.apply(ev.StopRequested(), NOW)
    before = (dict(board.workers), dict(board.zygotes), dict(board.generations), board.demand)
    rows = [asdict(row) for table in before[:3] for row in table.values()]
    board.apply(event, NOW)
    assert (board.workers, board.zygotes, board.generations, board.demand) == before
    assert [asdict(row) for table in before[:3] for row in table.values()] == rows


@pytest.mark.parametrize("table", ["workers", "zygotes", "generations"])
def test_a_copys_rows_are_its_own(table):
    """The policy tries its plans on a copy: what it changes there must not be seen here."""
    board = scoreboard(worker_row(), zygote_row())
    twin = board.copy()
    getattr(twin, table)[1].since = 0.0
    assert getattr(board, table)[1].since != 0.0
    del getattr(twin, table)[1]
    assert 1 in getattr(board, table)
