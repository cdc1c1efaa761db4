"""A simulated world around the policy, on a virtual clock: processes, clients and an administrator.

`simulate(seed)` lives one life of a service: a start, reloads, resizes, reforks, load, and a stop. The world
drives `Scoreboard.apply` and `policy.decide` as the master does, performs the actions (a `ForkWorker` is
followed by a `WorkerForked` a moment later), and checks `Invariants` after each step.

**Chance.** All random numbers come from one generator that the seed initializes, so a seed is a life, the
same each time. To replay a failure: ``python -c "from tests.core.simulator import simulate;
simulate(SEED)"``; the exception has the seed, the fates and the limits in a note.

**A fate** is something that goes wrong with a process, with a probability: an application that does not load,
a worker that ignores its retirement. A life has up to five of them. `World._meets` draws, and counts what
happened in `World.seen`, by which a test demands that each fate and each action has occurred in some life.

**The end of a life.** With calm (no fates, no load, 20 minutes) comes the state of rest, which has invariants
of its own; then a stop, which must end. Some lives are stopped in the middle instead.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from preforkd.core import events as ev, policy
from preforkd.core.model import Limits, WorkerState, ZygoteState
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Blame, Failure
from tests.core.invariants import Invariants, Violation

FAILURE = Failure(Blame.APPLICATION, "simulated")


@dataclass
class Fates:
    """Probabilities of what can go wrong; all zero: everything works."""

    # A zygote: its application fails, hangs or dies while loading; it dies later, or ignores its dismissal.
    load_fails: float = 0.0
    load_hangs: float = 0.0
    load_dies: float = 0.0
    zygote_dies: float = 0.0
    zygote_stays: float = 0.0
    zygote_is_stopped: float = 0.0
    # A fork: the kernel refuses it, the news is late, or the zygote never answers.
    fork_fails: float = 0.0
    birth_is_late: float = 0.0
    fork_is_unanswered: float = 0.0
    # A worker's start.
    dies_at_start: float = 0.0
    hangs_at_start: float = 0.0
    reports_failure: float = 0.0
    # A worker in service: it dies soon or later, retires by itself, reaches a limit, hangs, is stopped.
    dies_soon: float = 0.0
    dies_later: float = 0.0
    leaves: float = 0.0
    ignores_retirement: float = 0.0
    reaches_limit: float = 0.0
    is_overdue: float = 0.0
    is_stopped: float = 0.0
    hangs: float = 0.0
    # A refork: the worker cannot fork the zygote, the zygote hangs, or there is no answer.
    refork_fails: float = 0.0
    refork_hangs: float = 0.0
    refork_is_never_born: float = 0.0
    # The master: several facts arrive before the policy runs.
    turn_is_late: float = 0.0

    @staticmethod
    def random(chance: random.Random) -> Fates:
        """Draw the fates of a life."""
        names = set(Fates.__dataclass_fields__) - {"turn_is_late"}
        # A few at a time: with all of them at once nothing is ever promoted.
        chosen = chance.sample(sorted(names), k=chance.randint(0, 5))
        drawn = {name: chance.choice([0.05, 0.2, 0.6, 1.0]) for name in chosen}
        # Not among the five: it does no harm of its own, it lets the others coincide.
        return Fates(**drawn, turn_is_late=chance.choice([0.0, 0.0, 0.5, 1.0]))


@dataclass
class World:
    """One life. ``seen`` counts facts, actions and fates, so that a test can demand that they occurred."""

    seed: int
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.fates = Fates.random(self.chance)
        self.board = Scoreboard()
        self.now = 1000.0
        target = self.chance.randint(1, 6)
        most = target + self.chance.choice([0, 0, 1, 4, 12])
        self.limits = Limits(
            floor=target,
            target=target,
            maximum=most,
            surge=self.chance.randint(1, target),
            spare=self.chance.randint(0, min(2, target)),
            age=self.chance.choice([math.inf, math.inf, 30.0]),
            start=self.chance.choice([5.0, 20.0, 60.0]),
            boot=self.chance.choice([2.0, 10.0]),
            drain=self.chance.choice([0.0, 1.0, 10.0]),
        )
        self.invariants = Invariants(self)
        self.generation = 0
        self.wake_at: float | None = None
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._pids = itertools.count(100)
        self._hung: set[int] = set()
        """Numbers of workers and zygotes that do not react."""
        self.load = 0
        """Requests that are served at a time, or wait."""
        self._sampling = False

    # --- the clock -------------------------------------------------------------------------------

    def later(self, delay: float, event: Callable[[], None]) -> None:
        """Call ``event`` after this many seconds."""
        heapq.heappush(self._queue, (self.now + delay, next(self._order), event))

    def run(self, seconds: float) -> None:
        """Let time pass: perform what is due, and wake the policy when its plan requested it."""
        end = self.now + seconds
        while True:
            event_at = self._queue[0][0] if self._queue else float("inf")
            wake_at = self.wake_at if self.wake_at is not None else float("inf")
            if min(event_at, wake_at) > end:
                self.now = end
                return
            if event_at <= wake_at:
                self.now = event_at
                heapq.heappop(self._queue)[2]()
            else:
                self.now = wake_at
                self.wake_at = None
                self.decide()

    # --- facts and decisions ---------------------------------------------------------------------

    def fact(self, fact: ev.Fact) -> None:
        """Apply a fact, and run the policy now or a little later."""
        self.seen[type(fact).__name__] += 1
        self.board.apply(fact, self.now)
        if self._meets("turn_is_late"):
            # The master applies all facts that have arrived before it runs the policy.
            self.later(self.chance.choice([0.0, 0.1, 1.0]), self.decide)
        else:
            self.decide()

    def decide(self) -> None:
        """Run the policy as a turn of the master does, and check the invariants."""
        serving_before = self.board.serving()
        current_before = self.board.current
        backing_off = {
            row.generation: row.failure_streak.retry_at > self.now
            for row in self.board.generations.values()
        }
        plan = policy.decide(self.board, self.limits, self.now)
        # A hung or stopped worker that is killed was no capacity.
        serving_before -= sum(
            self.board.workers[action.worker].state is WorkerState.READY
            for action in plan.actions
            if isinstance(action, ev.KillWorker) and self.board.workers[action.worker].serving
        )
        for action in plan.actions:
            self.seen[type(action).__name__] += 1
            self._follow_candidate(action)
            self.invariants.check_action(action, backing_off)
            self.board.apply(action, self.now)
        self.invariants.check_plan(plan, serving_before, current_before is not None)
        self.wake_at = plan.wake_at
        for action in plan.actions:
            self._perform(action)

    def _follow_candidate(self, action: ev.Action) -> None:
        if isinstance(action, ev.Promote) and self.limits.candidate is not None:
            self.seen["promoted to other limits"] += 1
            self.limits = self.limits.candidate
            self.invariants.allow_shrinking()
        elif isinstance(action, ev.Abandon):
            self.limits = replace(self.limits, candidate=None)

    # --- the processes ------------------------------------------------------------------------

    def _meets(self, fate: str) -> bool:
        """Draw whether this fate occurs now."""
        met = self.chance.random() < getattr(self.fates, fate)
        if met:
            self.seen[fate] += 1
        return met

    def _perform(self, action: ev.Action) -> None:
        """Let the process react to an action, by facts that arrive later."""
        match action:
            case ev.SpawnZygote(zygote=zygote):
                self.later(0.0, lambda: self._zygote_spawned(zygote))
            case ev.DismissZygote(zygote=zygote):
                if zygote not in self._hung and not self._meets("zygote_stays"):
                    self.later(0.01, lambda: self._zygote_gone(zygote, "exit status 0"))
            case ev.ForkZygote(zygote=zygote):
                self._refork(zygote)
            case ev.KillZygote(zygote=zygote) | ev.GiveUpRefork(zygote=zygote):
                self.later(0.001, lambda: self._zygote_gone(zygote, "killed by SIGKILL"))
            case ev.ForkWorker(worker=worker):
                self._fork(worker)
            case ev.ServeWorker(worker=worker):
                self._serve(worker)
            case ev.RetireWorker(worker=worker):
                if worker not in self._hung and not self._meets("ignores_retirement"):
                    delay = self.chance.choice([0.0, 0.1, 0.5])
                    self.later(delay, lambda: self._worker_gone(worker, "exit status 0"))
            case ev.KillWorker(worker=worker):
                self.later(0.001, lambda: self._worker_gone(worker, "killed by SIGKILL"))
            case _:
                pass

    def _refork(self, zygote: int) -> None:
        if self._meets("refork_is_never_born"):
            return
        if self._meets("refork_fails"):
            self.later(0.01, lambda: self.fact(ev.ZygoteFailed(zygote, FAILURE)))
            return
        hangs = self._meets("refork_hangs")

        def born() -> None:
            if zygote not in self.board.zygotes:
                return
            self.fact(ev.ZygoteSpawned(zygote, next(self._pids)))
            if not hangs:
                self.later(0.1, lambda: self._zygote_loaded(zygote))

        self.later(0.05, born)

    def _zygote_spawned(self, zygote: int) -> None:
        if zygote not in self.board.zygotes:
            return
        self.fact(ev.ZygoteSpawned(zygote, next(self._pids)))
        if self._meets("load_hangs"):
            return
        delay = self.chance.choice([0.05, 0.5, 3.0])
        if self._meets("load_fails"):
            self.later(delay, lambda: self._zygote_failed(zygote))
        elif self._meets("load_dies"):
            self.later(delay, lambda: self._zygote_gone(zygote, "killed by SIGSEGV"))
        else:
            self.later(delay, lambda: self._zygote_loaded(zygote))

    def _zygote_failed(self, zygote: int) -> None:
        if zygote in self.board.zygotes:
            self.fact(ev.ZygoteFailed(zygote, FAILURE))
            self.later(0.01, lambda: self._zygote_gone(zygote, "exit status 0"))

    def _zygote_loaded(self, zygote: int) -> None:
        if zygote not in self.board.zygotes:
            return
        self.fact(ev.ZygoteLoaded(zygote))
        if self._meets("zygote_is_stopped"):
            delay = self.chance.choice([0.0, 2.0, 20.0])
            self.later(delay, lambda: self._zygote_stopped(zygote))
        if self._meets("zygote_dies"):
            delay = self.chance.choice([0.01, 2.0, 20.0])
            self.later(delay, lambda: self._zygote_gone(zygote, "killed by SIGKILL"))

    def _zygote_stopped(self, zygote: int) -> None:
        if zygote in self._hung:
            return
        self._hung.add(zygote)
        self.fact(ev.ZygoteStopped(zygote))
        if self.chance.random() < 0.5:
            self.later(self.chance.choice([1.0, 5.0]), lambda: self._zygote_continues(zygote))

    def _zygote_continues(self, zygote: int) -> None:
        self._hung.discard(zygote)
        self.fact(ev.ZygoteStopped(zygote, stopped=False))
        for row in list(self.board.workers.values()):
            if row.zygote == zygote and row.state is WorkerState.FORKING:
                self._born(row.worker)
        row = self.board.zygotes.get(zygote)
        if row is not None and row.state is ZygoteState.DISMISSED:
            self._zygote_gone(zygote, "exit status 0")

    def _zygote_gone(self, zygote: int, reason: str) -> None:
        if zygote not in self.board.zygotes:
            return
        self.fact(ev.ZygoteExited(zygote, reason))
        # The workers that were requested from it will never be forked.
        for row in list(self.board.workers.values()):
            if row.zygote == zygote and row.state is WorkerState.FORKING:
                self._worker_gone(row.worker, "it was never forked")

    def _fork(self, worker: int) -> None:
        zygote = self.board.workers[worker].zygote
        if self._meets("fork_is_unanswered"):
            self._hung.add(zygote)
        if zygote in self._hung:
            return
        if self._meets("fork_fails"):
            self.later(0.01, lambda: self._worker_gone(worker, "fork: no memory"))
            return
        late = self._meets("birth_is_late")
        self.later(5.0 if late else 0.01, lambda: self._born(worker))

    def _born(self, worker: int) -> None:
        if worker not in self.board.workers:
            return
        self.fact(ev.WorkerForked(worker, next(self._pids)))
        delay = self.chance.choice([0.0, 0.1, 1.0])
        if self._meets("hangs_at_start"):
            return
        if self._meets("dies_at_start"):
            self.later(delay, lambda: self._worker_gone(worker, "exit status 7"))
        elif self._meets("reports_failure"):
            self.later(delay, lambda: self._worker_failed(worker))
        else:
            self.later(delay, lambda: self._worker_ready(worker))

    def _worker_failed(self, worker: int) -> None:
        if worker in self.board.workers:
            self.fact(ev.WorkerFailed(worker, FAILURE))
            self.later(0.01, lambda: self._worker_gone(worker, "exit status 1"))

    def _worker_ready(self, worker: int) -> None:
        if worker in self.board.workers:
            self.fact(ev.WorkerReady(worker))

    def _serve(self, worker: int) -> None:
        if self._meets("dies_soon"):
            self.later(0.1, lambda: self._worker_gone(worker, "killed by SIGSEGV"))
        elif self._meets("dies_later"):
            delay = self.chance.uniform(1.0, 60.0)
            self.later(delay, lambda: self._worker_gone(worker, "killed by SIGKILL"))
        elif self._meets("leaves"):
            self.later(self.chance.uniform(0.0, 30.0), lambda: self._worker_retires_itself(worker))
        if self._meets("reaches_limit"):
            reached = ev.WorkerLimitReached(worker, "simulated")
            self.later(self.chance.uniform(0.1, 30.0), lambda: self.fact(reached))
        if self._meets("is_overdue"):
            overdue = ev.WorkerOverdue(worker, "simulated")
            self.later(self.chance.uniform(0.1, 30.0), lambda: self.fact(overdue))
        if self._meets("hangs"):
            self.later(self.chance.uniform(0.1, 30.0), lambda: self._hang(worker))
        if self._meets("is_stopped"):
            self.later(self.chance.uniform(0.1, 30.0), lambda: self._stopped(worker))

    def _hang(self, worker: int) -> None:
        # Outside any request: it misses its heartbeat, which counts only while connections wait.
        self._hung.add(worker)
        if self.load:
            self.later(30.0, lambda: self.fact(ev.WorkerOverdue(worker, "simulated")))

    def _stopped(self, worker: int) -> None:
        self.fact(ev.WorkerStopped(worker))
        if self.chance.random() < 0.5:
            self.later(5.0, lambda: self.fact(ev.WorkerStopped(worker, stopped=False)))

    def _worker_retires_itself(self, worker: int) -> None:
        if worker in self.board.workers:
            self.fact(ev.WorkerLeaving(worker))
            self.later(0.1, lambda: self._worker_gone(worker, "exit status 0"))

    def _worker_gone(self, worker: int, reason: str) -> None:
        if worker in self.board.workers:
            self.fact(ev.WorkerExited(worker, reason))

    # --- the clients ----------------------------------------------------------------------------

    def request(self, load: int) -> None:
        """Set the load: the number of requests that are served at a time, or wait."""
        self.load = load
        if not self._sampling:
            self._sampling = True
            self._sample()

    def _sample(self) -> None:
        serving = [
            row.worker
            for row in self.board.workers.values()
            if row.serving and row.state is WorkerState.READY
        ]
        busy = frozenset(serving[: self.load])
        self.fact(ev.PoolObserved(busy, len(busy), max(0, self.load - len(serving))))
        if self.load:
            self.later(1.0, self._sample)
        else:
            self._sampling = False

    def refork(self) -> None:
        """Request a refork."""
        self.seen["refork"] += 1
        self.fact(
            ev.ReforkRequested(self.chance.randint(1, 9), "asked", self.chance.random() < 0.5)
        )

    # --- the administrator-----------------------------------------------------------------------

    def reload(self) -> None:
        """Request a new generation, unless there is a candidate (the master queues such a reload)."""
        if self.board.candidate is None and not self.board.stopping:
            self.generation += 1
            if self.board.current is not None and self.chance.random() < 0.3:
                self._change_limits_at_promotion()
            self.fact(ev.GenerationRequested(self.generation))

    def _change_limits_at_promotion(self) -> None:
        most = self.chance.randint(1, 8)
        target = self.chance.choice([most, self.chance.randint(1, most)])
        surge = self.chance.randint(1, target)
        sizes = {"floor": target, "target": target, "maximum": most, "surge": surge}
        spare = min(self.limits.spare, target)
        wanted = replace(self.limits, candidate=None, spare=spare, **sizes)
        self.limits = replace(self.limits, candidate=wanted)
        self.invariants.widen(most, surge)

    def resize(self) -> None:
        """Change the size live, as a reload of ``workers:`` does."""
        target = self.chance.randint(1, 6)
        most = target + self.chance.choice([0, 0, 6])
        surge = self.chance.randint(1, target)
        self.seen["resize"] += 1
        self.invariants.allow_shrinking()
        self.limits = replace(
            self.limits,
            floor=target,
            target=target,
            maximum=most,
            surge=surge,
            spare=min(self.limits.spare, target),
        )
        self.invariants.widen(most, surge)
        self.decide()

    def live(self) -> None:
        """Live the life: a start, reloads and resizes while fates strike, then calm, then the stop."""
        self.reload()
        for _ in range(self.chance.randint(1, 6)):
            self.request(self.chance.choice([0, 0, 1, 3, 8, 20]))
            self.run(self.chance.choice([0.1, 1.0, 5.0, 40.0]))
            if self.board.current is not None and self.chance.random() < 0.3:
                self.refork()
                self.run(self.chance.choice([0.0, 0.1, 5.0]))
            if self.chance.random() < 0.1:
                self.fact(ev.MemoryShort())
            if self.board.current is not None and self.chance.random() < 0.3:
                self.resize()
            if self.board.current is not None:
                self.reload()
        if self.chance.random() < 0.3:
            self.end()
            return
        self.fates = Fates()
        self.limits = replace(self.limits, age=math.inf)
        if self.limits.candidate is not None:
            self.limits = replace(
                self.limits, candidate=replace(self.limits.candidate, age=math.inf)
            )
        self.request(0)
        self.run(1200.0)
        if self.board.current is None:
            # The first start was given up: the master stops then.
            self.seen["never started"] += 1
        else:
            self.seen["rest"] += 1
            self.invariants.check_rest()
        self.end()

    def end(self) -> None:
        """Stop; invariant 8: it ends within its deadlines, however the processes behave."""
        self.seen["stop"] += 1
        self.fact(ev.StopRequested(quick=False))
        if self.chance.random() < 0.3:
            self.run(0.2)
            self.fact(ev.StopRequested(quick=True))
        self.run(self.limits.drain + self.limits.dismiss + 10.0)
        if not self.board.finished:
            raise Violation(8, f"not ended: {self.board.workers} {self.board.zygotes}")
        if self.board.workers or self.board.zygotes:
            raise Violation(8, "ended with processes left")


def simulate(seed: int) -> World:
    """Return the world after the life of this seed. Raises Violation, with the seed in a note."""
    world = World(seed)
    try:
        world.live()
    except Violation as violation:
        violation.add_note(f"seed {seed}, fates {world.fates}, limits {world.limits}")
        raise
    return world
