"""Recycling: workers at a limit, overdue requests, and zygotes forked from workers."""

from itertools import pairwise

from msgspec.structs import replace

from preforkd.core import events as ev
from preforkd.core.recycling import spread
from preforkd.errors import Blame, Failure
from tests.core.test_policy import LIMITS, Pool


def kinds(actions, *wanted):
    return [action for action in actions if isinstance(action, wanted)]


def test_a_worker_at_a_limit_retires_when_its_replacement_serves():
    """First the fork, then, when the new one is ready, the retirement; one at a time."""
    pool = Pool().serve()
    assert pool.feed(ev.WorkerLimitReached(1, "enough")) == [ev.ForkWorker(3, 3, 1, 1)]
    assert pool.feed(ev.WorkerLimitReached(2, "enough"), ev.WorkerForked(3, 33)) == []
    actions = pool.feed(ev.WorkerReady(3))
    assert actions[:2] == [ev.ServeWorker(3), ev.RetireWorker(1)]
    assert kinds(actions, ev.ForkWorker) == [ev.ForkWorker(4, 4, 1, 1)]


def test_while_starts_fail_a_worker_at_a_limit_stays():
    """Capacity is worth more than a limit."""
    pool = Pool().serve()
    pool.feed(ev.WorkerLimitReached(1, "enough"), ev.WorkerForked(3, 33))
    assert not kinds(pool.feed(ev.WorkerExited(3, "exit status 1")), ev.RetireWorker)
    assert pool.board.serving() == 2


def test_age_is_spread():
    """Each worker has a limit of its own, none above what was set."""
    shares = [spread(worker) for worker in range(1, 200)]
    assert min(shares) >= 0.8
    assert max(shares) <= 1.0
    gaps = sorted(shares[:10])
    assert min(b - a for a, b in pairwise(gaps)) > 0.005
    pool = Pool(replace(LIMITS, age=100.0)).serve()
    due = sorted(100.0 + 100.0 * spread(worker) for worker in (1, 2))
    assert pool.wake_at == due[0]
    assert kinds(pool.wait(due[0] - pool.now), ev.RecycleWorker)


def test_an_overdue_request_gets_its_stacks_written_and_its_worker_killed():
    """The dump at once, the kill a moment later with the replacement, and no strike."""
    pool = Pool().serve()
    assert pool.feed(ev.WorkerOverdue(1, "GET / took too long")) == [ev.DumpWorker(1)]
    assert pool.wake_at == pool.now + LIMITS.stacks_timeout
    killed = ev.KillWorker(1, "GET / took too long")
    assert pool.wait(LIMITS.stacks_timeout) == [killed, ev.ForkWorker(3, 3, 1, 1)]
    assert pool.feed(ev.WorkerExited(1, "killed by SIGKILL")) == []
    assert pool.board.generations[1].failure_streak.failed_starts == 0


def test_an_overdue_request_that_ends_is_forgiven():
    """Its worker is not killed; the next one that is overdue has a time of its own."""
    pool = Pool().serve()
    pool.feed(ev.WorkerOverdue(1, "GET / took too long"))
    pool.wait(LIMITS.stacks_timeout / 2)
    assert pool.feed(ev.WorkerRecovered(1)) == []
    assert pool.wake_at is None
    assert pool.feed(ev.WorkerRecovered(1), ev.WorkerRecovered(99)) == []
    assert pool.feed(ev.WorkerOverdue(1, "GET /2 took too long")) == [ev.DumpWorker(1)]
    assert pool.wake_at == pool.now + LIMITS.stacks_timeout


def test_a_stopped_worker_is_killed_unless_it_goes_on():
    """Ten seconds; a SIGCONT in between ends it."""
    pool = Pool().serve()
    pool.feed(ev.WorkerStopped(1))
    assert pool.wake_at == pool.now + LIMITS.stopped
    pool.feed(ev.WorkerStopped(1, stopped=False))
    assert pool.wake_at is None
    pool.feed(ev.WorkerStopped(1))
    assert kinds(pool.wait(LIMITS.stopped), ev.KillWorker)


def asked(pool, warmest=2):
    return pool.feed(ev.ReforkRequested(warmest, "asked", urgent=True))


def test_a_guarded_refork_is_ordered_as_such():
    """The worker refuses if it finds something; the administrator's own request is not guarded."""
    pool = Pool().serve()
    guarded = ev.ReforkRequested(2, "25 requests", guarded=True)
    assert pool.feed(guarded) == [ev.ForkZygote(2, 1, 2, guarded=True)]
    pool = Pool().serve()
    assert asked(pool) == [ev.ForkZygote(2, 1, 2, guarded=False)]


def test_a_refork_goes_from_a_worker_to_the_last_old_one():
    """Fork, a first worker of its own, adoption; then the predecessor leaves, and worker by worker."""
    pool = Pool().serve()
    assert asked(pool) == [ev.ForkZygote(2, 1, 2)]
    assert pool.feed(ev.ZygoteSpawned(2, 50)) == []
    assert pool.feed(ev.ZygoteLoaded(2)) == [ev.ForkWorker(3, 3, 1, 2)]
    actions = pool.feed(ev.WorkerForked(3, 33), ev.WorkerReady(3))
    assert ev.AdoptZygote(2) in actions
    assert kinds(actions, ev.DismissZygote) == [ev.DismissZygote(1, followed=True)]
    assert kinds(actions, ev.RetireWorker) == [ev.RetireWorker(1)]
    assert kinds(actions, ev.ForkWorker) == [ev.ForkWorker(4, 4, 1, 2)]
    pool.feed(ev.WorkerExited(1, ""), ev.ZygoteExited(1, ""))
    pool.feed(ev.WorkerForked(4, 34), ev.WorkerReady(4), ev.WorkerExited(2, ""))
    assert {row.zygote for row in pool.board.workers.values()} == {2}
    assert pool.wake_at is None


def test_a_refork_whose_hook_fails_changes_nothing():
    """No zygote was born: the one before goes on, and the next attempt waits."""
    pool = Pool().serve()
    asked(pool)
    failure = Failure(Blame.APPLICATION, "the hook")
    assert pool.feed(ev.ZygoteFailed(2, failure)) == [ev.GiveUpRefork(2, failure)]
    assert list(pool.board.zygotes) == [1]
    assert pool.feed(ev.ReforkRequested(1, "2000 requests")) == []
    assert pool.wake_at > pool.now
    assert kinds(pool.wait(10.0), ev.ForkZygote)


def test_a_zygote_that_hangs_is_given_up():
    """Born, and never ready: killed at its deadline; born never: forgotten."""
    for pid in (50, None):
        pool = Pool().serve()
        asked(pool)
        if pid:
            pool.feed(ev.ZygoteSpawned(2, pid))
        (given_up,) = kinds(pool.wait(LIMITS.boot), ev.GiveUpRefork)
        assert "not ready within" in given_up.failure.reason
        pool.feed(ev.ZygoteExited(2, "killed by SIGKILL"))
        assert list(pool.board.zygotes) == [1]
        assert pool.board.generations[1].failure_streak.failed_starts == 0


def test_a_zygote_whose_workers_do_not_start_is_given_up():
    """Its first worker fails: its predecessor forks again, and no worker has retired."""
    pool = Pool().serve()
    asked(pool)
    pool.feed(ev.ZygoteSpawned(2, 50), ev.ZygoteLoaded(2), ev.WorkerForked(3, 33))
    actions = pool.feed(ev.WorkerExited(3, "killed by SIGSEGV"))
    assert "SIGSEGV" in kinds(actions, ev.GiveUpRefork)[0].failure.reason
    assert not kinds(actions, ev.RetireWorker)
    pool.feed(ev.ZygoteExited(2, "killed by SIGKILL"))
    pool.wait(100.0)
    assert pool.feed(ev.WorkerExited(1, "x")) == [ev.ForkWorker(4, 1, 1, 1)]


def test_a_reload_takes_precedence_over_a_refork():
    """What the old generation was about to fork goes with it, and a stop ends in any case."""
    pool = Pool().serve()
    asked(pool)
    pool.feed(ev.GenerationRequested(2), ev.ZygoteSpawned(3, 60), ev.ZygoteLoaded(3))
    for worker in (3, 4):
        pool.feed(ev.WorkerForked(worker, 30 + worker), ev.WorkerReady(worker))
    assert 2 not in pool.board.zygotes
    asked(pool, warmest=3)
    pool.feed(ev.StopRequested())
    for worker in (1, 2, 3, 4):
        pool.feed(ev.WorkerExited(worker, ""))
    pool.feed(ev.ZygoteExited(1, ""))
    assert pool.feed(ev.ZygoteExited(3, ""))[-1] == ev.Finish()
