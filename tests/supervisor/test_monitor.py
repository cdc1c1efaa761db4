"""What follows from looks at the pool."""

import logging
import re

import pytest

from preforkd.config.settings import (
    AppSettings,
    MemorySettings,
    ReforkSettings,
    Settings,
    TimeoutsSettings,
    WorkersSettings,
)
from preforkd.core import events as ev
from preforkd.core.model import Limits, WorkerState
from preforkd.core.scoreboard import GenerationRow, Role, Scoreboard, WorkerRow
from preforkd.errors import Blame, Failure
from preforkd.linux.memory import Usage
from preforkd.supervisor import monitor, worker_limits
from preforkd.supervisor.sampler import PoolSample
from tests.supervisor.test_notify import Loop

FIXED = Limits(floor=2, target=2, maximum=2, surge=2)
MB = 1 << 20
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


class MemorySampler:
    """Readings that a test delivers when it wants."""

    def __init__(self):
        self.requested, self.callback = [], None

    def read(self, pids, callback):
        self.requested.append(list(pids))
        self.callback = callback

    def growth(self, pid, usage):
        return usage.private - MB


class Service:
    def __init__(self, settings, limits):
        self.settings, self.limits, self.board = settings, limits, Scoreboard()
        self.memory_sampler = MemorySampler()
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
    assert of(facts, ev.WorkerLimitReached) == [ev.WorkerLimitReached(2, "too much")]
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


# --- values at each side of a bound ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "waiting", "timeouts", "pause"),
    [
        (FIXED, 0, {}, 1.0),
        (FIXED, 9, {}, 1.0),
        (FIXED, 0, {"slow": 0.5}, 0.5),
        (FIXED, 0, {"heartbeat": 0.25}, 0.25),
        (ELASTIC, 0, {}, 0.04),
        (ELASTIC, 9, {}, 0.02),
    ],
)
def test_the_pause_between_two_looks(scene, limits, waiting, timeouts, pause):
    """A second, or the shortest of the time limits; much less where the pool can grow."""
    loop, pool, _, _, watch = scene(limits, timeouts=TimeoutsSettings(**timeouts))
    pool.now, pool.queue = PoolSample({1: 100.0}), waiting
    watch.sampler.wake()
    (timer,) = [timer for timer in loop.timers if timer.callback == watch.sampler._sample]
    assert timer.when == pytest.approx(100.0 + pause)


def test_a_pool_that_is_as_large_as_it_may_be_is_looked_at_once_a_second(scene):
    """It cannot grow, so there is nothing to hurry for."""
    loop, pool, service, _, watch = scene(ELASTIC)
    service.board.apply(ev.Resize(8, 2, "x"), loop.now)
    pool.now, pool.queue = PoolSample({1: 100.0}), 9
    watch.sampler.wake()
    assert loop.timers[0].when == 101.0


@pytest.mark.parametrize(("age", "held"), [(0.02, 1), (0.019, 0)])
def test_a_request_counts_as_a_long_one_from_20_ms_on(scene, age, held):
    """A pool keeps spare workers for those; shorter ones come and go between two looks."""
    loop, pool, _, facts, watch = scene()
    loop.now = age
    pool.now = PoolSample({1: 0.0})
    watch.sampler.wake()
    assert facts[0].long_busy == held


def test_connections_wait_only_for_workers_that_are_busy(scene):
    """A queue that idle workers have not emptied yet is no evidence for a larger pool."""
    _, pool, _, facts, watch = scene()
    pool.queue = 7
    watch.sampler.wake()
    assert facts == [ev.PoolObserved(frozenset(), 0, 0)]


def test_before_the_first_promotion_no_queue_is_looked_at(scene):
    """There is no generation whose listeners they would be."""
    _, pool, service, facts, watch = scene()
    service.board.generations[1].role = Role.CANDIDATE
    pool.now, pool.queue = PoolSample({1: 100.0}), 7
    watch.sampler.wake()
    assert facts == [ev.PoolObserved(frozenset({1}), 0, 0)]
    assert watch._listeners() == []


def test_a_request_is_overdue_and_slow_exactly_at_its_limit(scene):
    """The look is planned for that moment, and acts at it."""
    for timeouts, times in (({"request": 2.5}, [102.5]), ({"slow": 2.5}, [])):
        loop, pool, service, _, watch = scene(timeouts=TimeoutsSettings(**timeouts))
        overdue, apply = [], service.board.apply

        def record(fact, now, *, apply=apply, overdue=overdue):
            overdue.extend([now] if isinstance(fact, ev.WorkerOverdue) else [])
            apply(fact, now)

        service.board.apply = record
        pool.now = PoolSample({1: 100.0})
        watch.sampler.wake()
        loop.run(4)
        assert overdue == times
        assert [when for _, when in pool.asked] == ([102.5] if "slow" in timeouts else [])


def test_after_an_overdue_request_the_next_look_comes_soon(scene):
    """In 50 ms: before the worker is killed, its request may end; the pool is not looked at without a pause."""
    loop, pool, _, _, watch = scene(timeouts=TimeoutsSettings(request=2.5))
    pool.now = PoolSample({1: 100.0})
    watch.sampler.wake()
    loop.run(2.5)
    (timer,) = [timer for timer in loop.timers if timer.callback == watch.sampler._sample]
    assert timer.when == pytest.approx(102.55)


def test_a_worker_of_which_nothing_is_known_is_passed_over(scene):
    """Its end was reported between its last word and this look."""
    loop, pool, _, facts, watch = scene(timeouts=TimeoutsSettings(request=1.0, slow=0.5))
    pool.now = PoolSample({9: 100.0, 1: 100.0})
    watch.sampler.wake()
    loop.run(2)
    assert {fact.worker for fact in of(facts, ev.WorkerOverdue)} == {1}
    assert {worker for worker, _ in pool.asked} == {1}


@pytest.mark.parametrize(("seconds", "logged"), [(1.99, False), (2.0, True)])
def test_saturation_is_logged_after_two_seconds(scene, caplog, seconds, logged):
    """Sooner it may be a burst that the pool is about to have served."""
    loop, pool, _, _, watch = scene()
    logging.getLogger("preforkd").propagate = True
    pool.now, pool.queue = PoolSample({1: 100.0, 2: 100.0}), 9
    watch.sampler.wake()
    loop.now = 100.0 + seconds
    watch.log_saturation()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * logged


def test_a_pool_that_was_not_saturated_has_nothing_to_log(scene, caplog):
    """Neither when no connection waits, nor when none has waited for long."""
    caplog.set_level(logging.DEBUG, "preforkd.master")
    loop, pool, _, _, watch = scene()
    logging.getLogger("preforkd").propagate = True
    watch.log_saturation()
    pool.now, pool.queue = PoolSample({1: 100.0, 2: 100.0}), 9
    watch.sampler.wake()
    watch.log_saturation()
    pool.queue = 0
    loop.run(1)
    watch.log_saturation()
    assert caplog.records == []


# --- reforks and memory ---------------------------------------------------------------------------


def test_the_warmest_worker_has_answered_the_most_requests(scene):
    """0, which is no worker's number, where there is none."""
    _, pool, _, _, watch = scene()
    assert watch.warmest() == 0
    pool.now = PoolSample({}, {1: 9, 2: 5})
    assert watch.warmest() == 1


REFORK = MemorySettings(refork=ReforkSettings(after=100))


def test_enough_requests_are_a_reason_for_a_refork(scene):
    """Exactly as many as are set, of one worker of the newest zygote; and then not for a minute."""
    loop, pool, service, facts, watch = scene(memory=REFORK)
    service.board.apply(ev.SpawnZygote(1, 1), 0.0)
    service.board.workers[2].zygote = 7
    pool.now = PoolSample({1: 100.0}, {1: 99, 2: 500})
    watch.sampler.wake()
    assert not of(facts, ev.ReforkRequested)
    pool.now = PoolSample({1: 100.0}, {1: 100, 2: 500})
    loop.run(1)
    reason = "worker 1 has answered 100 requests"
    assert of(facts, ev.ReforkRequested) == [ev.ReforkRequested(1, reason)]
    service.board.apply(ev.AdoptZygote(1), loop.now)
    loop.run(59.5)
    assert len(of(facts, ev.ReforkRequested)) == 1
    loop.run(1)
    assert len(of(facts, ev.ReforkRequested)) == 2


@pytest.mark.parametrize("change", ["switched off", "under way", "no zygote", "no generation"])
def test_when_requests_are_no_reason_for_a_refork(scene, change):
    """The setting is off, one is due already, or there is nothing that could be forked anew."""
    memory = MemorySettings() if change == "switched off" else REFORK
    loop, pool, service, facts, watch = scene(memory=memory)
    if change != "no zygote":
        service.board.apply(ev.SpawnZygote(1, 1), 0.0)
    if change == "under way":
        service.board.apply(ev.ReforkRequested(1, "asked"), 0.0)
    if change == "no generation":
        service.board.generations[1].role = Role.CANDIDATE
    pool.now = PoolSample({1: 100.0}, {1: 5000})
    watch.sampler.wake()
    loop.run(5)
    assert not of(facts, ev.ReforkRequested)


ONCE = MemorySettings(refork=ReforkSettings(after="once"))


@pytest.mark.parametrize("outcome", ["adopted", "failed"])
def test_one_guarded_refork_of_a_generation(scene, outcome):
    """After 25 requests of a worker; there is no other, whether it succeeds or is refused."""
    loop, pool, service, facts, watch = scene(memory=ONCE)
    service.board.apply(ev.SpawnZygote(1, 1), 0.0)
    pool.now = PoolSample({1: 100.0}, {1: 24})
    watch.sampler.wake()
    assert not of(facts, ev.ReforkRequested)
    pool.now = PoolSample({1: 100.0}, {1: 25})
    loop.run(1)
    asked = ev.ReforkRequested(1, "worker 1 has answered 25 requests", guarded=True)
    assert of(facts, ev.ReforkRequested) == [asked]
    service.board.apply(asked, loop.now)
    service.board.apply(ev.ForkZygote(2, 1, 1, guarded=True), loop.now)
    if outcome == "adopted":
        service.board.apply(ev.AdoptZygote(2), loop.now)
    else:
        service.board.apply(ev.GiveUpRefork(2, Failure(Blame.APPLICATION, "a thread")), loop.now)
    pool.now = PoolSample({1: 100.0}, {1: 5000})
    loop.run(200)
    assert len(of(facts, ev.ReforkRequested)) == 1


def usage(private):
    return Usage(rss=0, pss=0, private=private, anonymous=0, pss_files=None)


def test_the_heaviest_workers_are_replaced(scene):
    """Above their share of the limit, the heaviest first, and each is told of the heaviest three."""
    loop, pool, service, facts, watch = scene(memory=MemorySettings(limit=100 * MB))
    for worker in (3, 4, 5):
        row = WorkerRow(worker, worker, 1, 1, WorkerState.READY, 0.0, 0.0, worker + 10)
        service.board.workers[worker] = row
    service.board.workers[5].state = WorkerState.RETIRING
    service.board.workers[4].limit_reached = "old"
    pool.now = PoolSample({1: 100.0})
    watch.sampler.wake()
    memory = service.memory_sampler
    assert memory.requested == [[11, 12, 13]]
    loop.run(12)
    assert len(memory.requested) == 1  # one at a time
    # Worker 1 may have 92.4 MB, worker 2 84.7 MB, worker 3 97.1 MB.
    memory.callback({11: usage(93 * MB), 12: ProcessLookupError(), 13: usage(99 * MB)})
    spent = of(facts, ev.WorkerLimitReached)
    assert [fact.worker for fact in spent] == [3, 1]
    assert re.findall("[0-9.]+ MB", spent[0].reason) == ["99.0 MB", "98.0 MB", "99.0 MB", "93.0 MB"]
    assert all(
        re.findall("worker [0-9]", fact.reason) == ["worker 3", "worker 1"] for fact in spent
    )
    loop.run(10)
    assert memory.requested[1:] == [[12]]
    memory.callback({12: usage(84 * MB)})
    assert len(of(facts, ev.WorkerLimitReached)) == 2


@pytest.mark.parametrize(("private", "replaced"), [(MB, False), (MB + 1, True)])
def test_a_worker_may_have_as_much_memory_as_its_limit(scene, monkeypatch, private, replaced):
    """A byte more is too much."""
    monkeypatch.setattr(monitor, "spread", lambda worker: 1.0)
    _, pool, service, facts, watch = scene(memory=MemorySettings(limit=MB))
    pool.now = PoolSample({1: 100.0})
    watch.sampler.wake()
    service.memory_sampler.callback({11: usage(private), 12: usage(0)})
    assert bool(of(facts, ev.WorkerLimitReached)) is replaced


def test_only_three_of_the_heaviest_are_named(scene):
    """A pool may have hundreds of workers. Two of the same size do not keep each other from it."""
    _, pool, service, facts, watch = scene(memory=MemorySettings(limit=MB))
    for worker in (3, 4):
        row = WorkerRow(worker, worker, 1, 1, WorkerState.READY, 0.0, 0.0, worker + 10)
        service.board.workers[worker] = row
    pool.now = PoolSample({1: 100.0})
    watch.sampler.wake()
    service.memory_sampler.growth = lambda pid, usage: None
    service.memory_sampler.callback({pid: usage(9 * MB) for pid in (11, 12, 13, 14)})
    reasons = {fact.reason for fact in of(facts, ev.WorkerLimitReached)}
    assert len(of(facts, ev.WorkerLimitReached)) == 4
    assert {reason.count("9.0 MB") for reason in reasons} == {4}


def test_without_a_limit_no_memory_is_measured(scene):
    """Reading it takes the kernel milliseconds for each process."""
    loop, pool, service, _, watch = scene()
    pool.now = PoolSample({1: 100.0})
    watch.sampler.wake()
    loop.run(20)
    assert service.memory_sampler.requested == []


def test_limits_are_checked_every_ten_seconds(scene, monkeypatch):
    """With the connections that the worker has open, and its own share of each limit."""
    loop, pool, _, _, watch = scene()
    pool.connections = 7
    checks = []

    def check(pid, settings, connections, share):
        checks.append((loop.now, pid, connections, round(share, 4)))
        return ""

    monkeypatch.setattr(worker_limits, "reason_to_replace", check)
    pool.now = PoolSample({1: 100.0})
    watch.sampler.wake()
    loop.run(9.9)
    assert checks == [(100.0, 11, 7, 0.9236), (100.0, 12, 7, 0.8472)]
    loop.run(0.2)
    assert [when for when, *_ in checks[2:]] == [110.0, 110.0]
