"""What follows from looks at the pool."""

import logging

import pytest

from preforkd.config.settings import AppSettings, Settings, TimeoutsSettings, WorkersSettings
from preforkd.core import events as ev
from preforkd.core.model import Limits, WorkerState
from preforkd.core.scoreboard import GenerationRow, Role, Scoreboard, WorkerRow
from preforkd.supervisor import monitor, worker_limits
from preforkd.supervisor.sampler import PoolSample
from tests.supervisor.test_notify import Loop

FIXED = Limits(floor=2, target=2, maximum=2, surge=2)
ELASTIC = Limits(floor=2, target=2, maximum=8, surge=8)


class Pool:
    """Slots, queues and stacks as the test says."""

    def __init__(self, loop):
        self.loop, self.now, self.queue, self.asked = loop, PoolSample(), 0, []
        self.heartbeats = []

    def sample(self, now):
        return self.now

    def request_wakeups(self):
        pass

    def waiting(self, generation):
        return self.queue

    def listeners(self, generation):
        return []

    def request_heartbeat(self, worker):
        self.heartbeats.append(worker)

    def busy_with(self, worker):
        return "GET /slow HTTP/1.1"

    def request_stacks(self, worker, patience, callback):
        self.asked.append((worker, self.loop.now))
        self.loop.call_later(patience, callback, "File app.py, line 7")

    def worker(self, worker):
        return self if worker in (1, 2) else None

    @property
    def slot_memory(self):
        return self

    def read(self, now):
        return self

    connections = 0


class Service:
    def __init__(self, settings, limits):
        self.settings, self.limits, self.board = settings, limits, Scoreboard()
        self.board.generations[1] = GenerationRow(1, Role.CURRENT, 0.0)
        for worker in (1, 2):
            row = WorkerRow(worker, worker, 1, 1, WorkerState.READY, 0.0, 0.0, worker + 10)
            row.serving = row.was_ready = True
            self.board.workers[worker] = row


@pytest.fixture
def scene():
    def build(limits=FIXED, **settings):
        loop, facts = Loop(), []
        pool = Pool(loop)
        service = Service(Settings(**settings), limits)

        def feed(fact):
            facts.append(fact)
            service.board.apply(fact, loop.now)

        return (
            loop,
            pool,
            service,
            facts,
            monitor.Monitor(loop, service, pool, feed, lambda: None),
        )

    return build


def of(facts, kind):
    return [fact for fact in facts if isinstance(fact, kind)]


def test_looks_become_facts(scene):
    """Who is busy, who is held by one request, and the kernel's word about its queue."""
    loop, pool, _, facts, watch = scene()
    pool.now, pool.queue = PoolSample({1: 100.0, 2: 99.0}, {1: 3}), 4
    watch.sampler.wake()
    assert facts == [ev.PoolObserved(frozenset({1, 2}), 1, 4)]
    pool.now, pool.queue = PoolSample({}, {1: 3}), 0
    loop.run(5)
    assert facts[-1] == ev.PoolObserved(frozenset(), 0, 0)
    assert not loop.timers


def test_a_pool_that_can_grow_is_looked_at_more_often(scene):
    """Once a second is enough for one that cannot; twice as often as else while somebody waits."""
    counts = []
    for limits, waiting in ((FIXED, 9), (ELASTIC, 0), (ELASTIC, 9)):
        loop, pool, _, facts, watch = scene(limits)
        pool.now, pool.queue = PoolSample({1: 100.0}, {1: 3}), waiting
        watch.sampler.wake()
        loop.run(2)
        counts.append(len(facts))
    assert counts[0] <= 4
    assert 40 <= counts[1] <= 60
    assert 80 <= counts[2] <= 120


def test_a_request_is_overdue_at_its_deadline(scene):
    """Once, with the request that the worker names; a new request has a time of its own."""
    loop, pool, service, facts, watch = scene(timeouts=TimeoutsSettings(request=3.5))
    pool.now = PoolSample({1: 100.0, 2: 99.0}, {})
    watch.sampler.wake()
    loop.run(2.6)
    overdue = ev.WorkerOverdue(2, "GET /slow HTTP/1.1 took longer than 3.5 s")
    assert of(facts, ev.WorkerOverdue) == [overdue]
    pool.now = PoolSample({1: 102.6, 2: 99.0}, {})
    loop.run(2.5)
    assert of(facts, ev.WorkerOverdue) == [overdue]
    loop.run(1.1)
    assert len(of(facts, ev.WorkerOverdue)) == 2
    assert service.board.workers[1].overdue


def test_a_request_that_ends_after_all_is_forgiven(scene):
    """Before its worker is killed, a moment later: the next request would be killed with it."""
    loop, pool, service, facts, watch = scene(timeouts=TimeoutsSettings(request=1.0))
    pool.now = PoolSample({1: 100.0}, {})
    watch.sampler.wake()
    loop.run(1.1)
    assert service.board.workers[1].overdue
    looks = len(facts)
    loop.run(0.3)
    assert len(facts) > looks + 3
    pool.now = PoolSample({1: 101.3}, {1: 1})
    loop.run(0.1)
    assert of(facts, ev.WorkerRecovered) == [ev.WorkerRecovered(1)]
    assert not service.board.workers[1].overdue
    loop.run(0.7)
    assert len(of(facts, ev.WorkerOverdue)) == 1
    loop.run(0.5)
    assert len(of(facts, ev.WorkerOverdue)) == 2


def test_a_slow_request_gets_its_stacks_logged_once(scene, caplog):
    """At timeouts.slow, with the request and where it is; nothing else happens."""
    loop, pool, _, facts, watch = scene(timeouts=TimeoutsSettings(slow=1.5))
    logging.getLogger("preforkd").propagate = True
    pool.now = PoolSample({1: 100.0}, {})
    watch.sampler.wake()
    loop.run(10)
    assert [worker for worker, _ in pool.asked] == [1]
    assert pool.asked[0][1] == pytest.approx(101.5)
    assert "GET /slow HTTP/1.1 has taken 1.8 s so far" in caplog.text
    assert "File app.py, line 7" in caplog.text
    pool.now = PoolSample({1: 110.0}, {})
    loop.run(2)
    assert len(pool.asked) == 2
    assert not of(facts, ev.WorkerOverdue)


def test_what_workers_have_used_is_looked_at_now_and_then(scene, monkeypatch):
    """A reason to replace one is a fact, and given once."""
    loop, pool, _, facts, watch = scene(limits=FIXED)
    pids = []

    def reason(pid, settings, connections, share):
        pids.append(pid)
        return "too much" if pid == 12 else ""

    monkeypatch.setattr(worker_limits, "reason_to_replace", reason)
    pool.now = PoolSample({1: 100.0}, {})
    watch.sampler.wake()
    loop.run(25)
    assert of(facts, ev.WorkerSpent) == [ev.WorkerSpent(2, "too much")]
    assert pids == [11, 12, 11, 11]


def test_saturation_is_said_at_its_beginning_and_its_end(scene, caplog):
    """Two lines for one time of waiting."""
    caplog.set_level(logging.INFO, "preforkd.master")
    loop, pool, _, _, watch = scene()
    logging.getLogger("preforkd").propagate = True
    pool.now, pool.queue = PoolSample({1: 100.0, 2: 100.0}, {}), 9
    watch.sampler.wake()
    for _ in range(6):
        loop.run(1)
        watch.log_saturation()
    assert caplog.text.count("9 connections are waiting") == 1
    pool.queue = 0
    loop.run(1)
    watch.log_saturation()
    assert caplog.text.count("no connection is waiting any more") == 1


BEAT = TimeoutsSettings(heartbeat=10.0)


def test_a_worker_whose_loop_stands_still_is_overdue(scene):
    """It says that it is idle, connections wait, and it does not answer; meanwhile it counts as busy."""
    loop, pool, service, facts, watch = scene(timeouts=BEAT)
    pool.now, pool.queue = PoolSample({2: 100.0}, {}, {1: 5}), 3
    watch.sampler.wake()
    assert pool.heartbeats == [1]
    loop.run(9.5)
    assert pool.heartbeats == [1]
    assert not of(facts, ev.WorkerOverdue)
    assert facts[-1].busy == {1, 2}
    loop.run(1)
    (overdue,) = of(facts, ev.WorkerOverdue)
    assert overdue.worker == 1
    assert "its event loop has not run for 10.0 s" in overdue.reason
    pool.now = PoolSample({2: 100.0}, {}, {1: 6})
    loop.run(1)
    assert of(facts, ev.WorkerRecovered) == [ev.WorkerRecovered(1)]
    assert not service.board.workers[1].overdue


def test_a_loop_that_turns_is_left_alone(scene):
    """However long connections wait; it is asked again each second."""
    loop, pool, _, facts, watch = scene(timeouts=BEAT)
    pool.queue = 3
    pool.now = PoolSample({2: 100.0}, {}, {1: 0})

    def answer(worker):
        pool.heartbeats.append(worker)
        pool.now = PoolSample({2: 100.0}, {}, {1: len(pool.heartbeats)})

    pool.request_heartbeat = answer
    watch.sampler.wake()
    loop.run(40)
    assert not of(facts, ev.WorkerOverdue)
    assert 30 < len(pool.heartbeats) < 45
    assert {fact.busy for fact in of(facts, ev.PoolObserved)} == {frozenset({2})}


@pytest.mark.parametrize("change", ["a request", "switched off", "held up"])
def test_who_does_not_answer_may_have_a_reason(scene, change):
    """A request has it, the setting is off, or the master itself stood still."""
    timeouts = TimeoutsSettings(heartbeat=0.0) if change == "switched off" else BEAT
    loop, pool, _, facts, watch = scene(timeouts=timeouts)
    pool.queue = 3
    pool.now = busy = PoolSample({2: 100.0}, {}, {1: 0})
    watch.sampler.wake()
    for _ in range(6):
        loop.run(6)
        if change == "a request":
            pool.now = PoolSample({1: loop.now, 2: 100.0}, {}, {1: 0})
            loop.run(2)
            pool.now = busy
        elif change == "held up":
            loop.now += 6
    assert not of(facts, ev.WorkerOverdue)


@pytest.mark.parametrize("how", ["asgi", "threads"])
def test_a_request_is_no_reason_where_loops_turn_beside_requests(scene, how):
    """An asyncio loop, and one whose threads have the requests."""
    settings = {
        "asgi": {"app": AppSettings(target="asgi:site:app")},
        "threads": {"workers": WorkersSettings(threads=2)},
    }
    loop, pool, _, facts, watch = scene(timeouts=BEAT, **settings[how])
    pool.now, pool.queue = PoolSample({1: 100.0}, {}, {1: 5, 2: 1}), 3
    watch.sampler.wake()
    for beats in range(12):
        pool.now = PoolSample({1: 100.0}, {}, {1: 5, 2: beats})
        loop.run(1)
    assert [fact.worker for fact in of(facts, ev.WorkerOverdue)] == [1]


def test_who_has_connections_open_is_asked_now_and_then(scene):
    """Their clients may wait, unseen by the kernel's queue; the looks go on until it has answered."""
    loop, pool, _, facts, watch = scene(timeouts=BEAT)
    pool.now = PoolSample({}, {}, {1: 5, 2: 1}, {1: 3, 2: 0})
    watch.sampler.wake()
    loop.run(8)
    assert pool.heartbeats == [1]
    assert watch.sampler.quiet_since() is None
    pool.now = PoolSample({}, {}, {1: 6, 2: 1}, {1: 3, 2: 0})
    loop.run(30)
    assert pool.heartbeats == [1]
    assert watch.sampler.quiet_since() is not None
    watch.sampler.wake()
    loop.run(12)
    assert pool.heartbeats == [1, 1]
    assert [fact.worker for fact in of(facts, ev.WorkerOverdue)] == [1]
