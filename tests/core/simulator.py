"""The world outside the policy, on a virtual clock: what zygotes, workers and people do to it.

The simulator drives `Scoreboard.apply` and `policy.decide` as the master does, lets each process meet a
fate that a seed decides, and checks the invariants of the design after each step.
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
from preforkd.core.model import ALIVE, Limits, Role, WorkerState, ZygoteState
from preforkd.core.scoreboard import Scoreboard
from preforkd.errors import Blame, Failure

FAILURE = Failure(Blame.APPLICATION, "simulated")


class Violation(AssertionError):
    """An invariant does not hold; the number is that of the design."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"invariant {number}: {text}")
        self.number = number


@dataclass
class Fates:
    """Probabilities; all zero is a world in which everything works."""

    load_fails: float = 0.0
    load_hangs: float = 0.0
    load_dies: float = 0.0
    zygote_dies: float = 0.0
    zygote_stays: float = 0.0
    fork_fails: float = 0.0
    birth_is_late: float = 0.0
    dies_at_start: float = 0.0
    hangs_at_start: float = 0.0
    says_failed: float = 0.0
    dies_soon: float = 0.0
    dies_later: float = 0.0
    leaves: float = 0.0
    ignores_retirement: float = 0.0
    reaches_limit: float = 0.0
    is_overdue: float = 0.0
    is_stopped: float = 0.0
    hangs: float = 0.0
    refork_fails: float = 0.0
    refork_hangs: float = 0.0
    refork_is_never_born: float = 0.0
    fork_is_unanswered: float = 0.0
    zygote_is_stopped: float = 0.0
    turn_is_late: float = 0.0

    @staticmethod
    def random(chance: random.Random) -> Fates:
        names = set(Fates.__dataclass_fields__) - {"turn_is_late"}
        # A few troubles at a time: with all of them at once nothing is ever promoted.
        chosen = chance.sample(sorted(names), k=chance.randint(0, 5))
        troubles = {name: chance.choice([0.05, 0.2, 0.6, 1.0]) for name in chosen}
        # No trouble of its own: it makes others meet.
        return Fates(**troubles, turn_is_late=chance.choice([0.0, 0.0, 0.5, 1.0]))


@dataclass
class World:
    """One scenario; ``seen`` counts what happened, so that a test can tell that it was not empty."""

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
        self.widest = self.limits
        self.generation = 0
        self.wake_at: float | None = None
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._retired: dict[int, float] = {}
        self._killed: set[int] = set()
        self._hung: set[int] = set()
        """Zygotes that do not answer."""
        self._pids = itertools.count(100)
        self.load = 0
        """Requests that are served at a time, or wait."""
        self._hung: set[int] = set()
        self._looking = False
        self._grown_at = -math.inf

    # --- the clock -------------------------------------------------------------------------------

    def later(self, delay: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._order), event))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
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
        self.seen[type(fact).__name__] += 1
        self.board.apply(fact, self.now)
        if self._meets("turn_is_late"):
            # The master applies all facts that have arrived before it decides.
            self.later(self.chance.choice([0.0, 0.1, 1.0]), self.decide)
        else:
            self.decide()

    def decide(self) -> None:
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
            self._check_action(action, backing_off)
            if isinstance(action, ev.DismissZygote):
                self._check_dismissal(self.board.zygotes[action.zygote], action.followed)
            self.board.apply(action, self.now)
        self._check_after(plan, serving_before, current_before is not None)
        self.wake_at = plan.wake_at
        for action in plan.actions:
            self._perform(action)

    def _follow_candidate(self, action: ev.Action) -> None:
        if isinstance(action, ev.Promote) and self.limits.candidate is not None:
            self.seen["promoted to other limits"] += 1
            self.limits = self.limits.candidate
            self._grown_at = -math.inf
        elif isinstance(action, ev.Abandon):
            self.limits = replace(self.limits, candidate=None)

    def _check_action(self, action: ev.Action, backing_off: dict[int, bool]) -> None:
        match action:
            case ev.ForkWorker(generation=generation) | ev.SpawnZygote(generation=generation):
                if self.board.stopping or backing_off.get(generation):
                    raise Violation(3, f"{action} while stopping or backing off")
                if isinstance(action, ev.ForkWorker):
                    self._check_fork(action)
            case ev.ServeWorker(worker=worker):
                row = self.board.workers[worker]
                if self.board.generations[row.generation].role is not Role.CURRENT:
                    raise Violation(7, f"{action} before its generation was promoted")
            case ev.KillWorker(worker=worker):
                self._check_kill(self.board.workers[worker])
            case ev.ForkZygote(worker=worker):
                row = self.board.workers[worker]
                if not row.serving or row.state is not WorkerState.READY or self.board.stopping:
                    raise Violation(3, f"{action} from {row}")
            case ev.Resize(size=size, before=before, reason=reason):
                self._check_size(size, before, reason)
            case _:
                pass

    def _check_fork(self, action: ev.ForkWorker) -> None:
        if action.slot in {row.slot for row in self.board.workers.values()}:
            raise Violation(2, f"{action}: the seat is taken")
        candidate = self.board.candidate
        if candidate is not None and candidate.generation == action.generation:
            most = (self.limits.candidate or self.limits).maximum
            if self.board.count(action.generation, ALIVE) >= most:
                raise Violation(10, f"{action}: {most} are all that are needed")

    def _check_size(self, size: int, before: int, reason: str) -> None:
        if not self.limits.floor <= size <= self.limits.maximum:
            raise Violation(2, f"a size of {size}: {self.limits}")
        if size > before:
            self._grown_at = self.now
        elif size < before and reason != "memory is short" and self.now - self._grown_at < 10.0:
            raise Violation(9, f"shrinks to {size} after {self.now - self._grown_at} s")

    def _check_dismissal(self, row, followed: bool) -> None:
        newer = any(
            other.generation == row.generation and other.zygote > row.zygote and other.adopted
            for other in self.board.zygotes.values()
        )
        if followed and not newer:
            raise Violation(10, f"{row} is dismissed as if {followed=}")
        if not followed and any(self.board.workers_of(row.generation)):
            raise Violation(10, f"{row} is dismissed while workers of its generation live")

    def _check_kill(self, row) -> None:
        quick = self.board.stopping is not None and self.board.stopping.quick
        if row.dumped_at is not None and self.now >= row.dumped_at + self.limits.stacks_timeout:
            return
        if row.stopped_at is not None and self.now >= row.stopped_at + self.limits.stopped:
            return
        if row.state is WorkerState.READY and not quick:
            raise Violation(6, f"{row} is killed without having been told to leave")
        early = self.now < row.since + self.limits.drain
        if row.state is WorkerState.RETIRING and not quick and early:
            raise Violation(6, f"{row} is killed before its deadline")

    def _check_after(self, plan: ev.Plan, serving_before: int, promoted: bool) -> None:
        again = policy.decide(self.board, self.limits, self.now)
        if again.actions:
            raise Violation(1, f"wished for again: {again.actions}")
        room = self.widest.maximum + self.widest.surge
        if len(self.board.workers) > room:
            raise Violation(2, f"{len(self.board.workers)} rows, {room} allowed")
        first = self._first_deadline()
        if plan.wake_at is not None and plan.wake_at <= self.now:
            raise Violation(4, f"wakes at {plan.wake_at}, it is {self.now}")
        if first is not None and (plan.wake_at is None or plan.wake_at > first):
            raise Violation(4, f"wakes at {plan.wake_at}, a deadline is at {first}")
        if promoted and not self.board.stopping:
            least = min(serving_before, self.limits.floor)
            if self.board.serving() < least:
                raise Violation(5, f"{self.board.serving()} serve, {serving_before} did before")
        self._check_use()

    def _check_use(self) -> None:
        # Who is ready and does not serve waits for a promotion: else it would wait for ever.
        for row in self.board.workers.values():
            role = self.board.generations[row.generation].role
            waits = row.state is WorkerState.READY and not row.serving
            if waits and not self.board.stopping and role is not Role.CANDIDATE:
                raise Violation(7, f"{row} will never serve: its generation is {role}")

    def _first_deadline(self) -> float | None:
        # Counted here anew, from the rows alone: it must not share the policy's mistakes.
        limits, times = self.limits, []
        for row in self.board.workers.values():
            if row.state in {WorkerState.FORKING, WorkerState.STARTING}:
                times.append(row.since + limits.boot)
            elif row.state is WorkerState.RETIRING:
                times.append(row.since + limits.drain)
            if row.dumped_at is not None and row.state is not WorkerState.KILLED:
                times.append(row.dumped_at + limits.stacks_timeout)
            if row.stopped_at is not None and row.state is not WorkerState.KILLED:
                times.append(row.stopped_at + limits.stopped)
        for zygote in self.board.zygotes.values():
            if zygote.state is ZygoteState.LOADING:
                patience = limits.start if zygote.parent is None else limits.boot
                times.append(zygote.since + patience)
            elif zygote.state is ZygoteState.DISMISSED:
                times.append(zygote.since + limits.dismiss)
            proven = zygote.parent is None or zygote.adopted
            judged = zygote.state is ZygoteState.DISMISSED or proven
            judged = judged and zygote.state is not ZygoteState.KILLED
            if judged and zygote.stopped_at is not None:
                times.append(zygote.stopped_at + limits.stopped)
        if self.board.candidate and not self.board.stopping:
            times.append(self.board.candidate.since + limits.start)
        return min(times, default=None)

    # --- what the processes do -------------------------------------------------------------------

    def _meets(self, fate: str) -> bool:
        met = self.chance.random() < getattr(self.fates, fate)
        if met:
            self.seen[fate] += 1
        return met

    def _perform(self, action: ev.Action) -> None:
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
            self.later(self.chance.choice([1.0, 5.0]), lambda: self._zygote_goes_on(zygote))

    def _zygote_goes_on(self, zygote: int) -> None:
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
        # Those whose fork it had been asked for will never be born.
        for row in list(self.board.workers.values()):
            if row.zygote == zygote and row.state is WorkerState.FORKING:
                self._worker_gone(row.worker, "it was never born")

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
        elif self._meets("says_failed"):
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
            self.later(self.chance.uniform(0.0, 30.0), lambda: self._worker_leaves(worker))
        if self._meets("reaches_limit"):
            spent = ev.WorkerLimitReached(worker, "simulated")
            self.later(self.chance.uniform(0.1, 30.0), lambda: self.fact(spent))
        if self._meets("is_overdue"):
            overdue = ev.WorkerOverdue(worker, "simulated")
            self.later(self.chance.uniform(0.1, 30.0), lambda: self.fact(overdue))
        if self._meets("hangs"):
            self.later(self.chance.uniform(0.1, 30.0), lambda: self._hangs(worker))
        if self._meets("is_stopped"):
            self.later(self.chance.uniform(0.1, 30.0), lambda: self._stopped(worker))

    def _hangs(self, worker: int) -> None:
        # Outside any request: found out by its silence, if somebody waits for it.
        self._hung.add(worker)
        if self.load:
            self.later(30.0, lambda: self.fact(ev.WorkerOverdue(worker, "simulated")))

    def _stopped(self, worker: int) -> None:
        self.fact(ev.WorkerStopped(worker))
        if self.chance.random() < 0.5:
            self.later(5.0, lambda: self.fact(ev.WorkerStopped(worker, stopped=False)))

    def _worker_leaves(self, worker: int) -> None:
        if worker in self.board.workers:
            self.fact(ev.WorkerLeaving(worker))
            self.later(0.1, lambda: self._worker_gone(worker, "exit status 0"))

    def _worker_gone(self, worker: int, reason: str) -> None:
        if worker in self.board.workers:
            self.fact(ev.WorkerExited(worker, reason))

    # --- what clients do -------------------------------------------------------------------------

    def request(self, load: int) -> None:
        """Let so many requests be under way, or wait, from now on."""
        self.load = load
        if not self._looking:
            self._looking = True
            self._look()

    def _look(self) -> None:
        serving = [
            row.worker
            for row in self.board.workers.values()
            if row.serving and row.state is WorkerState.READY
        ]
        busy = frozenset(serving[: self.load])
        self.fact(ev.PoolObserved(busy, len(busy), max(0, self.load - len(serving))))
        if self.load:
            self.later(1.0, self._look)
        else:
            self._looking = False

    def refork(self) -> None:
        """Ask for a zygote that is forked from a worker."""
        self.seen["refork"] += 1
        self.fact(
            ev.ReforkRequested(self.chance.randint(1, 9), "asked", self.chance.random() < 0.5)
        )

    # --- what people do --------------------------------------------------------------------------

    def reload(self) -> None:
        """Ask for a new generation, unless one is being brought up (the master merges those)."""
        if self.board.candidate is None and not self.board.stopping:
            self.generation += 1
            if self.board.current is not None and self.chance.random() < 0.3:
                self._ask_for_other_limits()
            self.fact(ev.GenerationRequested(self.generation))

    def _ask_for_other_limits(self) -> None:
        most = self.chance.randint(1, 8)
        target = self.chance.choice([most, self.chance.randint(1, most)])
        surge = self.chance.randint(1, target)
        sizes = {"floor": target, "target": target, "maximum": most, "surge": surge}
        spare = min(self.limits.spare, target)
        wanted = replace(self.limits, candidate=None, spare=spare, **sizes)
        self.limits = replace(self.limits, candidate=wanted)
        self._widen(most, surge)

    def resize(self) -> None:
        """Change the size live, as a reload of ``workers:`` does."""
        target = self.chance.randint(1, 6)
        most = target + self.chance.choice([0, 0, 6])
        surge = self.chance.randint(1, target)
        self.seen["resize"] += 1
        self._grown_at = -math.inf
        self.limits = replace(
            self.limits,
            floor=target,
            target=target,
            maximum=most,
            surge=surge,
            spare=min(self.limits.spare, target),
        )
        self._widen(most, surge)
        self.decide()

    def _widen(self, most: int, surge: int) -> None:
        # Rows that an earlier, wider limit allowed may still be dying.
        self.widest = replace(
            self.widest,
            maximum=max(self.widest.maximum, most),
            target=1,
            floor=1,
            spare=0,
            surge=max(self.widest.surge, surge),
        )

    def live(self) -> None:
        """A life: a start, reloads and resizes while fates strike, then calm, then the end."""
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
            self.rest()
        self.end()

    def rest(self) -> None:
        """Invariant 7: after a calm while there is one generation, of the right size, and no more."""
        self.seen["rest"] += 1
        board = self.board
        current = board.current
        assert current is not None
        generations = {row.generation for row in board.workers.values()}
        if generations != {current.generation} or board.candidate or len(board.generations) != 1:
            raise Violation(7, f"at rest there are {board.generations} {board.workers}")
        if board.serving() != self.limits.floor or len(board.workers) != self.limits.floor:
            raise Violation(7, f"{board.serving()} serve, {self.limits.floor} should")
        if [row.state for row in board.zygotes.values()] != [ZygoteState.READY]:
            raise Violation(7, f"zygotes at rest: {board.zygotes}")
        if self.wake_at is not None:
            raise Violation(4, "at rest nothing is due")
        if any(row.state not in ALIVE for row in board.workers.values()):
            raise Violation(7, "somebody is dying at rest")

    def end(self) -> None:
        """Invariant 8: a stop ends, however processes behave, within what its deadlines allow."""
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
    """Live through the life that this seed decides; raises Violation with the seed in a note."""
    world = World(seed)
    try:
        world.live()
    except Violation as violation:
        violation.add_note(f"seed {seed}, fates {world.fates}, limits {world.limits}")
        raise
    return world
