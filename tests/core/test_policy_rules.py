"""Each rule of the policy, on a scoreboard made by hand, with the time at each side of a bound."""

import pytest
from msgspec.structs import replace

from preforkd.core import events as ev
from preforkd.core.backoff import FailureStreak
from preforkd.core.model import Limits, Role, WorkerState, ZygoteState
from preforkd.core.policy import decide
from preforkd.core.rows import GenerationRow, ReforkAttempt
from preforkd.errors import Blame, Failure
from tests.core.rows import NOW, scoreboard, serving, worker_row, zygote_row

W, Z = WorkerState, ZygoteState
ONE = Limits(floor=1, target=1, maximum=1, surge=1, start=60.0, boot=30.0, drain=20.0, dismiss=5.0)
TWO = replace(ONE, floor=2, target=2, maximum=2)
THREE = replace(ONE, floor=3, target=3, maximum=3)
FAILURE = Failure(Blame.APPLICATION, "no database", "a stack", "start the database")


def decided(board, limits=ONE, now=NOW):
    """Return the actions that the policy plans."""
    return list(decide(board, limits, now).actions)


# --- deadlines ------------------------------------------------------------------------------------

READY_LATE = "worker 1 was not ready within 30 s"
LEAVES_LATE = "worker 1 did not exit within 20 s"
STOPPED = "worker 1 was stopped by a signal for 10 s"


@pytest.mark.parametrize(
    ("fields", "after", "kill"),
    [
        ({"state": W.STARTING}, 30.0, ev.KillWorker(1, READY_LATE, stacks=True)),
        ({"state": W.RETIRING}, 20.0, ev.KillWorker(1, LEAVES_LATE, stacks=True)),
        ({"overdue": "slow", "dumped_at": 110.0}, 0.3, ev.KillWorker(1, "slow")),
        ({"stopped_at": 110.0}, 10.0, ev.KillWorker(1, STOPPED)),
        # A stopped process cannot write its stacks.
        ({"state": W.RETIRING, "stopped_at": 105.0}, 5.0, ev.KillWorker(1, STOPPED)),
        ({"state": W.RETIRING, "stopped_at": 125.0}, 20.0, ev.KillWorker(1, LEAVES_LATE)),
    ],
)
def test_a_worker_is_killed_at_its_deadline(fields, after, kill):
    """Not a moment earlier; the policy asks to be called at that time."""
    board = scoreboard(zygote_row(), serving(2), worker_row(**fields))
    due = 110.0 + after
    before = decide(board, TWO, due - 0.01)
    assert [action for action in before.actions if isinstance(action, ev.KillWorker)] == []
    assert before.wake_at == due
    assert kill in decided(board, TWO, due)


def test_a_killed_worker_has_no_deadline():
    """The kernel ends it; there is nothing left to do."""
    fields = {"state": W.KILLED, "stopped_at": 100.0, "dumped_at": 100.0, "overdue": "x"}
    plan = decide(scoreboard(zygote_row(), serving(2), worker_row(**fields)), ONE, NOW)
    assert plan == ev.Plan((), None)


LOADS_LATE = "loading the application took longer than 60 s"
ZYGOTE_LEAVES_LATE = "it did not exit within 5 s"
ZYGOTE_STOPPED = "it was stopped by a signal for 10 s"


@pytest.mark.parametrize(
    ("fields", "after", "kill"),
    [
        ({"state": Z.LOADING}, 60.0, ev.KillZygote(1, LOADS_LATE, stacks=True)),
        ({"state": Z.DISMISSED}, 5.0, ev.KillZygote(1, ZYGOTE_LEAVES_LATE, stacks=True)),
        ({"stopped_at": 110.0}, 10.0, ev.KillZygote(1, ZYGOTE_STOPPED)),
        ({"state": Z.DISMISSED, "stopped_at": 102.0}, 2.0, ev.KillZygote(1, ZYGOTE_STOPPED)),
        ({"state": Z.DISMISSED, "stopped_at": 112.0}, 5.0, ev.KillZygote(1, ZYGOTE_LEAVES_LATE)),
        ({"state": Z.DISMISSED, "parent": 9}, 5.0, ev.KillZygote(1, ZYGOTE_LEAVES_LATE, stacks=True)),
        ({"parent": 9, "adopted": True, "stopped_at": 110.0}, 10.0, ev.KillZygote(1, ZYGOTE_STOPPED)),
    ],
)  # fmt: skip
def test_a_zygote_is_killed_at_its_deadline(fields, after, kill):
    """Not a moment earlier; the policy asks to be called at that time."""
    board = scoreboard(serving(), zygote_row(**fields))
    due = 110.0 + after
    before = decide(board, ONE, due - 0.01)
    assert [action for action in before.actions if isinstance(action, ev.KillZygote)] == []
    assert before.wake_at == due
    assert kill in decided(board, now=due)


@pytest.mark.parametrize("state", [Z.READY, Z.LOADING])
def test_a_zygote_on_trial_is_judged_by_its_first_worker_alone(state):
    """That it is stopped does not kill it: it is given up when it is not ready in time."""
    trial = zygote_row(2, parent=1, state=state, stopped_at=110.0)
    plan = decide(scoreboard(serving(), serving(2), zygote_row(), trial), ONE, 139.9)
    assert not [action for action in plan.actions if isinstance(action, ev.KillZygote)]
    if state is Z.LOADING:
        assert plan.wake_at == 140.0


def test_a_killed_zygote_has_no_deadline():
    """Nor has one that is ready and was asked for nothing."""
    for state in (Z.KILLED, Z.READY):
        fields = {"stopped_at": 100.0} if state is Z.KILLED else {}
        plan = decide(scoreboard(serving(), zygote_row(state=state, **fields)), ONE, NOW)
        assert plan == ev.Plan((), None)


def test_a_fork_that_is_not_answered_ends_the_zygote_and_the_worker():
    """The worker goes with the zygote, without stacks: there is no process that could write them."""
    worker = worker_row(3, state=W.FORKING, pid=None, slot=3)
    board = scoreboard(serving(), zygote_row(), worker)
    due = 110.0 + ONE.boot
    assert decide(board, TWO, due - 0.01) == ev.Plan((), due)
    unanswered = "worker 3 was not forked within 30 s: its zygote does not answer"
    assert decided(board, TWO, due) == [
        ev.KillZygote(1, "it did not fork worker 3 within 30 s", stacks=True),
        ev.KillWorker(3, unanswered),
    ]


# --- a candidate ----------------------------------------------------------------------------------


def reloading(*rows, since=NOW - 10.0, **fields):
    """Return a scoreboard with worker 1 of generation 1 in service and generation 2 the candidate."""
    candidate = GenerationRow(2, Role.CANDIDATE, since, **fields)
    return scoreboard(serving(), zygote_row(), candidate, *rows)


def test_a_candidate_is_promoted_when_it_is_ready():
    """The promotion comes first, then its workers serve, then the old ones leave."""
    new = worker_row(2, generation=2, zygote=2)
    board = reloading(new, zygote_row(2, generation=2))
    assert decided(board) == [ev.Promote(2), ev.ServeWorker(2), ev.RetireWorker(1)]
    new.state = W.STARTING
    assert decided(board, now=120.0) == []


def test_a_candidate_that_failed_is_abandoned():
    """With its failure as it is; a failure that is not fatal is retried."""
    assert decided(reloading(fatal=True, failure=FAILURE))[0] == ev.Abandon(2, FAILURE)
    tried = decided(reloading(fatal=False, failure=FAILURE))
    assert tried == [ev.SpawnZygote(2, 2)]


@pytest.mark.parametrize(("zygote", "retried"), [(Z.READY, True), (Z.LOADING, False)])
def test_at_the_first_start_a_failed_worker_is_retried_if_the_application_was_loaded(
    zygote, retried
):
    """There is nothing to fall back to; but what did not load would not load the next time."""
    first = GenerationRow(1, Role.CANDIDATE, NOW - 10.0, fatal=True, failure=FAILURE)
    actions = decided(scoreboard(first, zygote_row(state=zygote, since=NOW - 10.0)))
    expected = ev.ForkWorker(1, 1, 1, 1) if retried else ev.Abandon(1, FAILURE)
    assert actions[0] == expected


@pytest.mark.parametrize(
    ("rows", "doing"),
    [
        ([], "the application was still loading"),
        (
            [zygote_row(2, generation=2, state=Z.LOADING, since=NOW)],
            "the application was still loading",
        ),
        (
            [zygote_row(2, generation=2), worker_row(2, state=W.RETIRING, since=NOW)],
            "1 workers of earlier generations were still draining and left no room",
        ),
        ([zygote_row(2, generation=2)], "0 of 1 workers were ready"),
        (
            [zygote_row(2, generation=2), worker_row(2, generation=2, state=W.STARTING, since=NOW)],
            "0 of 1 workers were ready",
        ),
    ],
)
def test_a_candidate_that_takes_too_long_is_abandoned_with_the_reason(rows, doing):
    """At its deadline and not before; the failure names what it was waiting for."""
    board = reloading(*rows, since=NOW - ONE.start)
    early = decide(board, ONE, NOW - 0.01)
    assert not [action for action in early.actions if isinstance(action, ev.Abandon)]
    assert early.wake_at <= NOW
    failure = decided(board)[0].failure
    assert failure.blame is Blame.APPLICATION
    assert failure.reason == f"generation 2 was not ready within 60 s: {doing}"
    assert "timeouts.start" in failure.hint


def test_a_candidate_whose_workers_failed_until_its_time_was_over_names_that_failure():
    """With the time that it was tried for; the evidence and the hint stay."""
    board = reloading(since=NOW - ONE.start, failure=FAILURE)
    assert decided(board)[0] == ev.Abandon(
        2, replace(FAILURE, reason="no database (tried for 60 s)")
    )


def test_a_first_start_needs_the_floor_and_a_reload_the_size():
    """A first start is done with `floor` workers, and goes on to `target`; a reload brings all or `surge`."""
    limits = Limits(floor=1, target=3, maximum=4, surge=2)
    first = GenerationRow(1, Role.CANDIDATE, NOW)
    board = scoreboard(
        first, zygote_row(), worker_row(1), worker_row(2, state=W.STARTING, since=NOW)
    )
    assert decided(board, limits)[0] == ev.Promote(1)
    board.workers[1].state, board.workers[1].since = W.STARTING, NOW
    assert decided(board, limits) == [ev.ForkWorker(3, 3, 1, 1)]
    old = [serving(worker) for worker in (1, 2, 3)]
    board = reloading(*old, zygote_row(2, generation=2))
    forks = [action.worker for action in decided(board, limits)]
    assert forks == [4, 5]
    assert [action.worker for action in decided(board, replace(limits, surge=4))] == [4, 5, 6]


def test_the_promotion_brings_the_candidates_limits():
    """From then on the pool has their size, and not before."""
    two = Limits(floor=2, target=2, maximum=2, surge=2, candidate=ONE)
    new = worker_row(3, generation=2, zygote=2)
    board = reloading(serving(2), new, zygote_row(2, generation=2))
    retired = [ev.RetireWorker(1), ev.RetireWorker(2)]
    assert decided(board, two) == [ev.Promote(2), ev.ServeWorker(3), *retired]


# --- starts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [0.0, 0.01])
def test_starts_wait_for_the_end_of_the_delay(rest):
    """A zygote and a worker are started at that time, and the policy asks to be called then."""
    streak = FailureStreak(failed_starts=1, last=NOW - 1, retry_at=NOW + rest)
    current = GenerationRow(1, Role.CURRENT, 100.0, failure_streak=streak)
    for rows, start in (
        ([serving()], ev.SpawnZygote(1, 1)),
        ([zygote_row()], ev.ForkWorker(1, 1, 1, 1)),
    ):
        plan = decide(scoreboard(current, *rows), ONE, NOW)
        if rest:
            assert plan == ev.Plan((), NOW + rest)
        else:
            assert plan.actions == (start,)
            assert plan.wake_at > NOW


def test_a_zygote_is_spawned_when_its_generation_has_none_of_any_state():
    """One that is dying has its place until it has ended; the current generation comes first."""
    assert decided(reloading(zygote_row(2, generation=2)))[0] == ev.ForkWorker(2, 2, 2, 2)
    board = reloading()
    assert decided(board) == [ev.SpawnZygote(2, 2)]
    board.zygotes[1].state, board.zygotes[1].since = Z.DISMISSED, NOW
    assert decided(board) == [ev.SpawnZygote(2, 2)]
    del board.zygotes[1]
    assert decided(board) == [ev.SpawnZygote(2, 1), ev.SpawnZygote(3, 2)]


def test_workers_are_forked_into_the_room_that_there_is():
    """`maximum` and `surge` workers at the most, the dying among them."""
    limits = Limits(floor=2, target=2, maximum=2, surge=1)
    leaving = [worker_row(worker, state=W.RETIRING, since=NOW) for worker in (1, 2)]
    assert decided(scoreboard(zygote_row(), *leaving), limits) == [ev.ForkWorker(3, 3, 1, 1)]
    leaving.append(worker_row(3, state=W.RETIRING, since=NOW))
    assert decided(scoreboard(zygote_row(), *leaving), limits) == []


# --- what is not needed ---------------------------------------------------------------------------


def test_an_abandoned_generation_is_cleared_away():
    """What loads or starts is killed, what is ready is asked to leave; late ones are killed with stacks."""
    for since, late in ((NOW - 59.0, False), (NOW - 60.0, True)):
        board = scoreboard(
            serving(),
            zygote_row(),
            GenerationRow(2, Role.ABANDONED, since),
            zygote_row(2, generation=2, state=Z.LOADING, since=NOW),
            worker_row(2, generation=2, state=W.STARTING, since=NOW),
            worker_row(3, generation=2),
            serving(4, generation=2),
        )
        unwanted = "its generation is no longer wanted"
        assert decided(board)[:3] == [
            ev.KillWorker(2, unwanted, late),
            ev.RetireWorker(3),
            ev.KillZygote(2, unwanted, late),
        ]


def test_an_old_zygote_leaves_after_its_last_worker():
    """One that is loading is killed once it has a process, or was forked from a worker."""
    old = GenerationRow(1, Role.OLD, 100.0)
    current = GenerationRow(2, Role.CURRENT, 100.0)
    mine = [zygote_row(2, generation=2), serving(2, generation=2, zygote=2)]
    leaving = worker_row(1, state=W.RETIRING, since=NOW)
    unwanted = "its generation is no longer wanted"
    cases = [
        ([zygote_row(1)], [ev.DismissZygote(1)]),
        ([zygote_row(1), leaving], []),
        ([zygote_row(1, state=Z.DISMISSED, since=NOW)], []),
        ([zygote_row(1, state=Z.LOADING, since=NOW)], [ev.KillZygote(1, unwanted)]),
        ([zygote_row(1, state=Z.LOADING, since=NOW, pid=None)], []),
        ([zygote_row(1, state=Z.LOADING, since=NOW, pid=None, parent=9)], [ev.KillZygote(1, unwanted)]),
    ]  # fmt: skip
    for rows, actions in cases:
        assert decided(scoreboard(old, current, *mine, *rows)) == actions


def test_old_workers_leave_as_far_as_others_serve():
    """Only workers that serve count: one that starts may never be ready."""
    two = Limits(floor=2, target=2, maximum=2, surge=2)
    old = GenerationRow(1, Role.OLD, 100.0)
    current = GenerationRow(2, Role.CURRENT, 100.0)
    new = [serving(3, generation=2, zygote=2), serving(4, generation=2, zygote=2)]
    board = scoreboard(old, current, zygote_row(), zygote_row(2, generation=2))
    board.workers = {row.worker: row for row in (serving(1), serving(2), *new)}
    assert decided(board, two) == [ev.RetireWorker(1), ev.RetireWorker(2)]
    board.workers[4] = worker_row(4, generation=2, zygote=2, state=W.STARTING, since=NOW)
    assert decided(board, two) == [ev.RetireWorker(1)]
    board.workers[3] = worker_row(3, generation=2, zygote=2, state=W.STARTING, since=NOW)
    assert decided(board, two) == []


def test_of_too_many_the_youngest_leave():
    """First those that do not serve yet, then the youngest; of an elastic pool only idle ones."""
    rows = [serving(1), serving(2), serving(3), worker_row(4, state=W.STARTING, since=NOW)]
    board = scoreboard(zygote_row(), *rows)
    two = Limits(floor=2, target=2, maximum=2, surge=2)
    assert decided(board, two) == [ev.RetireWorker(4), ev.RetireWorker(3)]
    elastic = Limits(floor=2, target=2, maximum=4, surge=2)
    board.apply(ev.PoolObserved(busy=frozenset({3})), NOW)
    assert decided(board, two) == [ev.RetireWorker(4), ev.RetireWorker(3)]
    assert decided(board, elastic) == [ev.RetireWorker(4), ev.RetireWorker(2)]


def test_a_worker_is_told_to_serve_once():
    """When it is ready and its generation is the current one."""
    assert decided(scoreboard(zygote_row(), worker_row())) == [ev.ServeWorker(1)]
    assert decided(scoreboard(zygote_row(), serving())) == []
    board = reloading(worker_row(2, generation=2), zygote_row(2, generation=2))
    limits = Limits(floor=2, target=2, maximum=2, surge=2)
    assert decided(board, limits) == [ev.ForkWorker(3, 3, 1, 1), ev.ForkWorker(4, 4, 2, 2)]


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [False, True])
def test_a_stop(quick):
    """What starts is killed; what is ready finishes, or is killed as well when the stop is a quick one."""
    board = scoreboard(
        zygote_row(),
        zygote_row(2, state=Z.LOADING),
        serving(1),
        worker_row(2, state=W.STARTING),
        worker_row(3, state=W.RETIRING, since=NOW),
        worker_row(4, state=W.KILLED),
    )
    board.apply(ev.StopRequested(quick=quick), NOW)
    stopping = "the service is stopping"
    kill = [ev.KillWorker(worker, stopping) for worker in (1, 2, 3)]
    workers = kill if quick else [ev.RetireWorker(1), kill[1]]
    assert decided(board) == [ev.KillZygote(2, stopping), *workers]


def test_the_end_comes_when_no_process_is_left():
    """Neither a worker nor a zygote; afterwards nothing is decided any more."""
    for rows, actions in (
        ([worker_row(state=W.KILLED)], []),
        ([zygote_row(state=Z.KILLED)], []),
        ([zygote_row()], [ev.DismissZygote(1)]),
        ([], [ev.Finish()]),
    ):
        board = scoreboard(*rows)
        board.apply(ev.StopRequested(), NOW)
        assert decided(board) == actions
    board.apply(ev.Finish(), NOW)
    assert decide(board, ONE, NOW) == ev.Plan((), None)
    board.workers[1] = worker_row(state=W.RETIRING)
    assert decide(board, ONE, NOW) == ev.Plan((), None)


def test_a_stop_has_no_deadlines_but_those_of_processes():
    """Neither the delay of starts nor a refork wakes a service that is stopping."""
    streak = FailureStreak(failed_starts=1, last=NOW, retry_at=NOW + 1)
    current = GenerationRow(1, Role.CURRENT, 100.0, failure_streak=streak)
    board = scoreboard(current, zygote_row(), worker_row(state=W.RETIRING, since=NOW))
    board.apply(ev.StopRequested(), NOW)
    assert decide(board, ONE, NOW).wake_at == NOW + ONE.drain


# --- renewal from within --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_at", "rows", "fork"),
    [
        (NOW, [], True),
        (NOW + 0.01, [], False),
        # Not while another zygote of the generation comes or goes, and not from an unfit worker.
        (NOW, [zygote_row(2, state=Z.KILLED)], False),
        (NOW, [zygote_row(1, state=Z.LOADING, since=NOW)], False),
        (NOW, [zygote_row(1, state=Z.LOADING, since=NOW), zygote_row(2, generation=7)], False),
        (NOW, [serving(1, stopped_at=NOW)], False),
        (NOW, [serving(1, overdue="slow", dumped_at=NOW)], False),
        (NOW, [GenerationRow(2, Role.CANDIDATE, NOW), zygote_row(2, generation=2)], False),
    ],
)  # fmt: skip
def test_when_a_zygote_is_forked_from_a_worker(retry_at, rows, fork):
    """When it is due, not delayed by failures, and one worker is fit for it."""
    refork = ReforkAttempt(reason="2000 requests", retry_at=retry_at)
    current = GenerationRow(1, Role.CURRENT, 100.0, refork=refork)
    board = scoreboard(current, zygote_row(), serving(), *rows)
    plan = decide(board, ONE, NOW)
    forks = [action for action in plan.actions if isinstance(action, ev.ForkZygote)]
    assert forks == ([ev.ForkZygote(2, 1, 1)] if fork else [])
    assert plan.wake_at is None or plan.wake_at > NOW
    if retry_at > NOW:
        assert plan.wake_at == retry_at


def test_the_warmest_worker_forks_the_zygote_or_else_the_oldest():
    """One that has left in the meantime cannot."""
    for warmest, parent in ((2, 2), (9, 1), (3, 1)):
        refork = ReforkAttempt(reason="asked", warmest=warmest)
        current = GenerationRow(1, Role.CURRENT, 100.0, refork=refork)
        workers = [serving(1), serving(2), worker_row(3, state=W.STARTING, since=NOW)]
        board = scoreboard(current, zygote_row(), *workers)
        assert decided(board, Limits(3, 3, 3, 3)) == [ev.ForkZygote(2, 1, parent)]


def test_a_zygote_on_trial_that_is_late_is_given_up_with_its_stacks():
    """Its workers that start are killed with it, those that serve stay; a failure needs no stacks."""
    trial = zygote_row(2, parent=1, state=Z.LOADING, since=NOW - 30.0)
    starting = worker_row(3, zygote=2, state=W.STARTING, since=NOW)
    board = scoreboard(serving(1), serving(2), zygote_row(), trial, starting)
    assert not decided(board, THREE, NOW - 0.01)
    late = Failure(Blame.APPLICATION, "the zygote forked from a worker was not ready within 30 s")
    assert decided(board, THREE)[:2] == [
        ev.GiveUpRefork(2, late, stacks=True),
        ev.KillWorker(3, "its zygote was given up"),
    ]
    board.zygotes[2] = zygote_row(2, parent=1, failure=FAILURE)
    assert decided(board, THREE)[0] == ev.GiveUpRefork(2, FAILURE)


def test_a_zygote_on_trial_of_an_old_generation_goes_with_it():
    """Neither adopted nor given up: the rules for what is no longer wanted end it."""
    rows = [
        zygote_row(),
        serving(),
        zygote_row(2, parent=1),
        worker_row(2, zygote=2, was_ready=True),
    ]
    rows += [serving(3, generation=2, zygote=3), zygote_row(3, generation=2)]
    board = scoreboard(GenerationRow(1, Role.OLD, 1.0), GenerationRow(2, Role.CURRENT, 2.0), *rows)
    assert decided(board) == [ev.RetireWorker(2), ev.RetireWorker(1)]


def test_an_adopted_zygote_takes_the_place_of_those_before_it():
    """An earlier one that is ready leaves; until the adoption it stays."""
    rows = [zygote_row(), zygote_row(2, parent=1, adopted=True), serving(3, zygote=2)]
    assert decided(scoreboard(*rows)) == [ev.DismissZygote(1, followed=True)]
    rows[1] = zygote_row(2, parent=1)
    assert decided(scoreboard(*rows)) == [
        ev.AdoptZygote(2),
        ev.DismissZygote(1, followed=True),
    ]
    rows[:2] = [
        zygote_row(state=Z.DISMISSED, since=NOW),
        zygote_row(2, parent=1, adopted=True),
    ]
    assert decided(scoreboard(*rows)) == []


def test_workers_of_earlier_zygotes_are_replaced_the_oldest_first():
    """One of eight at a time, and at least one; one only while the zygote has yet to prove itself."""
    limits = Limits(floor=16, target=16, maximum=16, surge=16)
    zygotes = [zygote_row(2, parent=1, adopted=True)]
    old = [serving(worker) for worker in range(1, 17)]
    board = scoreboard(*zygotes, *old)
    forked = [action.worker for action in decided(board, limits)]
    assert forked == [17, 18]
    board.zygotes[2].adopted = False
    board.zygotes[1] = zygote_row()
    assert [action.worker for action in decided(board, limits)] == [17]
    board = scoreboard(*zygotes, *old, serving(17, zygote=2), serving(18, zygote=2))
    board.zygotes[2].adopted = True
    retired = [action for action in decided(board, limits) if isinstance(action, ev.RetireWorker)]
    assert retired == [ev.RetireWorker(1), ev.RetireWorker(2)]
    few = scoreboard(zygote_row(2, parent=1, adopted=True), serving(1))
    assert decided(few) == [ev.ForkWorker(2, 2, 1, 2)]


def test_a_worker_is_too_old_at_its_share_of_the_limit():
    """Worker 1 at 92.4 % of it; one that does not serve, or is to be replaced already, has no age."""
    limits = replace(ONE, age=100.0)
    due = 110.0 + 92.36067977499789
    board = scoreboard(zygote_row(), serving())
    assert decide(board, limits, due - 0.01) == ev.Plan((), pytest.approx(due))
    aged = ev.RecycleWorker(1, "it has served for 92 s")
    assert decided(board, limits, due + 0.001) == [aged, ev.ForkWorker(2, 2, 1, 1)]
    for fields in ({"limit_reached": "heavy"}, {"state": W.RETIRING, "since": NOW}):
        board = scoreboard(zygote_row(), serving(**fields), serving(2, since=NOW))
        actions = decided(board, replace(limits, maximum=2))
        assert not [action for action in actions if isinstance(action, ev.RecycleWorker)]
    assert decide(scoreboard(zygote_row(), serving()), ONE, NOW).wake_at is None


def test_an_overdue_worker_writes_its_stacks_once():
    """And one that was killed meanwhile does not."""
    board = scoreboard(zygote_row(), serving(overdue="slow"))
    assert decided(board) == [ev.DumpWorker(1)]
    board.workers[1].dumped_at = NOW
    assert decided(board) == []
    board = scoreboard(zygote_row(), serving(2), worker_row(state=W.KILLED, overdue="slow"))
    assert decided(board) == []
