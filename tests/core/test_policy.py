"""The policy: the invariants over many simulated lives (see `simulator`), and examples by hand."""

from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from preforkd.core import events as ev, policy
from preforkd.core.model import Limits
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Blame, Failure
from tests.core.simulator import simulate

SEEDS = 1200
FATES = [
    "load_fails",
    "load_hangs",
    "load_dies",
    "zygote_dies",
    "zygote_stays",
    "fork_fails",
    "birth_is_late",
    "dies_at_start",
    "hangs_at_start",
    "reports_failure",
    "dies_soon",
    "dies_later",
    "leaves",
    "ignores_retirement",
    "reaches_limit",
    "is_overdue",
    "is_stopped",
    "refork_fails",
    "refork_hangs",
    "refork_is_never_born",
    "fork_is_unanswered",
    "zygote_is_stopped",
    "turn_is_late",
]
ACTIONS = [
    "SpawnZygote",
    "DismissZygote",
    "KillZygote",
    "ForkWorker",
    "ServeWorker",
    "RetireWorker",
    "KillWorker",
    "RecycleWorker",
    "DumpWorker",
    "Resize",
    "ForkZygote",
    "AdoptZygote",
    "GiveUpRefork",
    "Promote",
    "Abandon",
    "Finish",
]


@pytest.mark.simulation
def test_the_invariants_hold_over_many_seeds():
    """1,200 lives, the same each time: no invariant is broken, and every fate and action occurred."""
    seen = Counter()
    for seed in range(SEEDS):
        seen += simulate(seed).seen
    missing = [
        name
        for name in [
            *FATES,
            *ACTIONS,
            "rest",
            "resize",
            "refork",
            "stop",
            "promoted to other limits",
        ]
        if not seen[name]
    ]
    assert not missing
    assert seen["rest"] > SEEDS / 4


@pytest.mark.simulation
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(min_value=SEEDS))
def test_the_invariants_hold_for_other_seeds(seed):
    """Seeds of hypothesis' choice, far from the small ones, break nothing either."""
    simulate(seed)


LIMITS = Limits(floor=2, target=2, maximum=2, surge=2, start=10.0, boot=5.0, drain=3.0)


class Pool:
    """A scoreboard that is driven by hand."""

    def __init__(self, limits=LIMITS):
        self.board, self.limits, self.now = Scoreboard(), limits, 100.0

    def feed(self, *facts):
        actions = []
        for fact in facts:
            self.board.apply(fact, self.now)
            plan = policy.decide(self.board, self.limits, self.now)
            for action in plan.actions:
                self.board.apply(action, self.now)
            actions += plan.actions
            self.wake_at = plan.wake_at
        return actions

    def wait(self, seconds):
        self.now += seconds
        plan = policy.decide(self.board, self.limits, self.now)
        for action in plan.actions:
            self.board.apply(action, self.now)
        self.wake_at = plan.wake_at
        return list(plan.actions)

    def serve(self):
        """Bring the first generation up."""
        self.feed(ev.GenerationRequested(1), ev.ZygoteSpawned(1, 10), ev.ZygoteLoaded(1))
        for worker in (1, 2):
            self.feed(ev.WorkerForked(worker, 20 + worker), ev.WorkerReady(worker))
        return self


def test_a_start_goes_from_zygote_to_promotion():
    """A zygote, then its workers, then the promotion, then they serve; nothing else."""
    pool = Pool()
    assert pool.feed(ev.GenerationRequested(1)) == [ev.SpawnZygote(1, 1)]
    assert pool.feed(ev.ZygoteSpawned(1, 10)) == []
    assert pool.feed(ev.ZygoteLoaded(1)) == [ev.ForkWorker(1, 1, 1, 1), ev.ForkWorker(2, 2, 1, 1)]
    assert pool.feed(ev.WorkerForked(1, 21), ev.WorkerReady(1), ev.WorkerForked(2, 22)) == []
    assert pool.feed(ev.WorkerReady(2)) == [
        ev.Promote(1),
        ev.ServeWorker(1),
        ev.ServeWorker(2),
    ]
    assert pool.wake_at is None


def test_a_reload_does_not_retire_before_the_new_ones_serve():
    """Old workers leave only once the new generation serves, all of it with surge `all`."""
    pool = Pool().serve()
    pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    assert pool.feed(ev.WorkerForked(3, 23), ev.WorkerReady(3), ev.WorkerForked(4, 24)) == []
    actions = pool.feed(ev.WorkerReady(4))
    assert actions[:3] == [ev.Promote(2), ev.ServeWorker(3), ev.ServeWorker(4)]
    assert set(actions[3:]) == {ev.RetireWorker(1), ev.RetireWorker(2)}


def test_a_zygote_leaves_after_the_last_of_its_workers():
    """At a reload as at a stop: what its exit handlers take away is used until then."""
    pool = Pool().serve()
    pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    pool.feed(ev.WorkerForked(3, 23), ev.WorkerReady(3))
    pool.feed(ev.WorkerForked(4, 24), ev.WorkerReady(4))
    assert pool.feed(ev.WorkerExited(1, "exit status 0")) == []
    assert pool.feed(ev.WorkerExited(2, "exit status 0")) == [ev.DismissZygote(1)]
    assert ev.DismissZygote(2) not in pool.feed(ev.StopRequested())
    assert pool.feed(ev.WorkerExited(3, "")) == []
    assert pool.feed(ev.WorkerExited(4, "")) == [ev.DismissZygote(2)]


def test_a_small_surge_goes_in_steps():
    """With a surge of one, one new worker and one old one change places at a time."""
    pool = Pool(Limits(floor=2, target=2, maximum=2, surge=1)).serve()
    forks = pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    assert forks == [ev.SpawnZygote(2, 2), ev.ForkWorker(3, 3, 2, 2)]
    actions = pool.feed(ev.WorkerForked(3, 23), ev.WorkerReady(3))
    assert [action for action in actions if isinstance(action, ev.RetireWorker)] == [
        ev.RetireWorker(1)
    ]
    assert pool.feed(ev.WorkerExited(1, "exit status 0")) == [ev.ForkWorker(4, 1, 2, 2)]


def test_a_worker_that_dies_in_service_is_replaced_at_once():
    """No delay after a life of some length, and the seat is the same."""
    pool = Pool().serve()
    pool.wait(10.0)
    assert pool.feed(ev.WorkerExited(1, "killed by SIGKILL")) == [ev.ForkWorker(3, 1, 1, 1)]


def test_a_candidate_that_fails_leaves_the_current_alone():
    """A worker of the candidate that dies at its start ends the reload, and only that."""
    pool = Pool().serve()
    pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    actions = pool.feed(ev.WorkerForked(3, 23), ev.WorkerExited(3, "exit status 7"))
    assert isinstance(actions[0], ev.Abandon)
    assert "exit status 7" in actions[0].failure.reason
    assert not [action for action in actions if isinstance(action, ev.RetireWorker)]
    assert pool.board.serving() == 2


def test_a_worker_of_the_old_generation_that_is_ready_too_late_leaves():
    """Ready in the same turn as the candidate's last worker, it would stay for ever, with old code."""
    pool = Pool().serve()
    pool.wait(10.0)
    pool.feed(ev.WorkerExited(1, "killed by SIGKILL"), ev.WorkerForked(3, 23))
    pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    pool.feed(ev.WorkerForked(4, 24), ev.WorkerForked(5, 25), ev.WorkerReady(4))
    pool.board.apply(ev.WorkerReady(3), pool.now)
    actions = pool.feed(ev.WorkerReady(5))
    assert ev.Promote(2) in actions
    assert ev.ServeWorker(3) not in actions
    assert ev.RetireWorker(3) in actions


def test_a_zygote_that_does_not_answer_is_replaced():
    """A fork that is not answered within `boot` ends the zygote, with its stacks, and then there is another."""
    pool = Pool().serve()
    pool.wait(10.0)
    pool.feed(ev.WorkerExited(1, "killed by SIGKILL"))
    assert pool.wake_at == pool.now + LIMITS.boot
    assert pool.wait(LIMITS.boot - 0.1) == []
    zygote, worker = pool.wait(0.2)
    reason = "it did not fork worker 1 within 5 s"
    assert zygote == ev.KillZygote(1, reason, stacks=True)
    assert isinstance(worker, ev.KillWorker)
    assert pool.wait(1.0) == []
    assert pool.feed(ev.ZygoteExited(1, "killed by SIGKILL")) == [ev.SpawnZygote(2, 1)]


def test_a_zygote_that_forks_many_is_given_the_time_for_each():
    """It forks one after the other: each answer begins the time of the next."""
    limits = Limits(floor=4, target=4, maximum=4, surge=1, start=100.0, boot=5.0)
    pool = Pool(limits)
    pool.feed(ev.GenerationRequested(1), ev.ZygoteSpawned(1, 10), ev.ZygoteLoaded(1))
    for worker in (1, 2, 3, 4):
        assert pool.wait(4.0) == []
        pool.feed(ev.WorkerForked(worker, 20 + worker), ev.WorkerReady(worker))
    assert pool.board.serving() == 4


@pytest.mark.parametrize("retry", [True, False])
def test_a_first_start_ends_at_the_first_failure_if_workers_load(retry):
    """Else another worker is tried for as long as the start may take."""
    pool = Pool(replace(LIMITS, retry=retry))
    pool.feed(ev.GenerationRequested(1), ev.ZygoteSpawned(1, 10), ev.ZygoteLoaded(1))
    failure = Failure(Blame.APPLICATION, "importing shop failed")
    actions = pool.feed(ev.WorkerForked(1, 21), ev.WorkerFailed(1, failure))
    assert (ev.Abandon(1, failure) in actions) is not retry


def test_a_zygote_that_is_stopped_is_replaced():
    """As a worker is, if it lasts; one that goes on stays."""
    pool = Pool().serve()
    assert pool.feed(ev.ZygoteStopped(1)) == []
    pool.wait(LIMITS.stopped / 2)
    assert pool.feed(ev.ZygoteStopped(1, stopped=False)) == []
    assert pool.wake_at is None
    pool.feed(ev.ZygoteStopped(1))
    (kill,) = pool.wait(LIMITS.stopped)
    assert kill == ev.KillZygote(1, "it was stopped by a signal for 10 s")
    assert pool.feed(ev.ZygoteExited(1, "killed by SIGKILL")) == [ev.SpawnZygote(2, 1)]
    assert pool.board.serving() == 2


def test_a_reload_to_fewer_workers_starts_no_more_than_will_stay():
    """From four to two: two are started, and all four of before leave when they serve."""
    four = Limits(floor=4, target=4, maximum=4, surge=4)
    two = Limits(floor=2, target=2, maximum=2, surge=2)
    pool = Pool(four)
    pool.feed(ev.GenerationRequested(1), ev.ZygoteSpawned(1, 10), ev.ZygoteLoaded(1))
    pool.feed(*(ev.WorkerForked(worker, 20 + worker) for worker in (1, 2, 3, 4)))
    pool.feed(*(ev.WorkerReady(worker) for worker in (1, 2, 3, 4)))
    pool.limits = replace(four, candidate=two)
    forks = pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    assert [type(action) for action in forks] == [ev.SpawnZygote, ev.ForkWorker, ev.ForkWorker]
    pool.feed(ev.WorkerForked(5, 25), ev.WorkerForked(6, 26), ev.WorkerReady(5))
    actions = pool.feed(ev.WorkerReady(6))
    assert not [action for action in actions if isinstance(action, ev.ForkWorker)]
    retired = {action.worker for action in actions if isinstance(action, ev.RetireWorker)}
    assert retired == {1, 2, 3, 4}


def test_what_takes_too_long_is_killed_with_its_stacks():
    """Loading, starting and leaving; not for one that is killed because it is not needed."""
    pool = Pool()
    pool.feed(ev.GenerationRequested(1), ev.ZygoteSpawned(1, 10))
    kills = [action for action in pool.wait(LIMITS.start) if isinstance(action, ev.KillZygote)]
    assert [kill.stacks for kill in kills] == [True]
    pool = Pool().serve()
    pool.wait(10.0)
    pool.feed(ev.WorkerExited(1, "killed by SIGKILL"), ev.WorkerForked(3, 23), ev.WorkerLeaving(2))
    assert ev.KillWorker(2, "worker 2 did not exit within 3 s", stacks=True) in pool.wait(3.0)
    assert ev.KillWorker(3, "worker 1 was not ready within 5 s", stacks=True) in pool.wait(2.0)
    pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11))
    pool.feed(ev.ZygoteLoaded(2), ev.WorkerForked(5, 25))
    (kill, *_) = pool.feed(ev.StopRequested(quick=True))[1:2]
    assert kill.stacks is False


def test_a_stop_retires_then_kills_at_the_deadline():
    """Workers are retired; those that stay are killed at the end of the drain timeout."""
    pool = Pool().serve()
    actions = pool.feed(ev.StopRequested())
    assert set(actions) == {ev.RetireWorker(1), ev.RetireWorker(2)}
    assert pool.wake_at == pool.now + 3.0
    assert pool.wait(2.9) == []
    kinds = {type(action) for action in pool.wait(0.2)}
    assert kinds == {ev.KillWorker}
    pool.feed(ev.WorkerExited(1, ""), ev.WorkerExited(2, ""))
    assert pool.feed(ev.ZygoteExited(1, "")) == [ev.Finish()]
