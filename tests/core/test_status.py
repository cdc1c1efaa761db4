"""The pool in words."""

from test_policy import LIMITS, Pool

from preforkd.core import events as ev
from preforkd.core.life import State
from preforkd.core.model import Blame, Failure
from preforkd.core.status import healthy, problems, summary


def test_the_line_tells_the_truth():
    """At the start, in service, during a reload, while draining, at the stop."""
    pool = Pool()
    pool.tell(ev.GenerationRequested(1))
    line = summary(pool.board, LIMITS, State.STARTING, 0)
    assert line == "starting: 0 of 2 workers ready, 0 busy, generation 1"
    pool = Pool().serve()
    assert (
        summary(pool.board, LIMITS, State.SERVING, 1)
        == "2 of 2 workers ready, 1 busy, generation 1"
    )
    pool.tell(ev.GenerationRequested(2), ev.ZygoteSpawned(2, 11), ev.ZygoteLoaded(2))
    pool.tell(ev.WorkerForked(3, 23), ev.WorkerReady(3))
    assert "reloading: 1 workers of generation 2 ready" in summary(
        pool.board, LIMITS, State.RELOADING, 0
    )
    pool.tell(ev.WorkerForked(4, 24), ev.WorkerReady(4))
    assert summary(pool.board, LIMITS, State.SERVING, 0).endswith("generation 2; 2 draining")
    pool.tell(ev.StopRequested())
    assert summary(pool.board, LIMITS, State.STOPPING, 3) == "stopping: 4 workers left, 3 busy"


def test_problems_are_said():
    """Nobody serves, too few serve, and starts that fail with their reason and the next try."""
    pool = Pool().serve()
    assert problems(pool.board, LIMITS, pool.now) == []
    pool.wait(10)
    pool.tell(ev.WorkerExited(1, "killed by SIGKILL"))
    assert problems(pool.board, LIMITS, pool.now) == ["only 1 of 2 workers serve"]
    pool.tell(ev.WorkerExited(2, "killed by SIGKILL"), ev.WorkerForked(3, 30))
    pool.tell(ev.WorkerFailed(3, Failure(Blame.APPLICATION, "no database")))
    first, second = problems(pool.board, LIMITS, pool.now)
    assert first.startswith("no worker serves")
    assert "next try in 0.2 s: no database" in second or "0.3 s: no database" in second


def test_health_is_patient_and_ends():
    """A pool without a serving worker is healthy for as long as a start may take, not for ever."""
    pool = Pool().serve()
    assert healthy(pool.board, LIMITS, pool.now + 10_000)
    pool.wait(10)
    pool.tell(ev.WorkerExited(1, "x"), ev.WorkerExited(2, "x"))
    assert healthy(pool.board, LIMITS, pool.now + LIMITS.start)
    assert not healthy(pool.board, LIMITS, pool.now + 1000)
