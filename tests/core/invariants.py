"""The invariants of the core, as checks of a simulated pool.

Each check raises a `Violation` with the number of the invariant in `preforkd.core`. The checks read the rows
and the limits and never call the policy's helpers: a mistake there must not hide itself here. Only invariant
1, that a plan is complete, asks the policy again. Invariant 8, that a stop ends, is checked where the stop is
(`World.end`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from preforkd.core import events as ev, policy
from preforkd.core.model import ALIVE, Limits, Role, WorkerState, ZygoteState
from preforkd.core.scoreboard import Scoreboard

if TYPE_CHECKING:
    from tests.core.simulator import World


class Violation(AssertionError):
    """An invariant does not hold; ``number`` is that of `preforkd.core`."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"invariant {number}: {text}")
        self.number = number


class Invariants:
    """The checks for one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._widest = world.limits
        self._grown_at = -math.inf

    @property
    def board(self) -> Scoreboard:
        return self._world.board

    @property
    def limits(self) -> Limits:
        return self._world.limits

    @property
    def now(self) -> float:
        return self._world.now

    def allow_shrinking(self) -> None:
        """Let the pool shrink at once: other limits hold now."""
        self._grown_at = -math.inf

    def widen(self, maximum: int, surge: int) -> None:
        """Apply other limits from now on; rows that earlier, wider ones allowed may still exist."""
        self._widest = replace(
            self._widest,
            maximum=max(self._widest.maximum, maximum),
            target=1,
            floor=1,
            spare=0,
            surge=max(self._widest.surge, surge),
        )

    def check_action(self, action: ev.Action, backing_off: dict[int, bool]) -> None:
        """Check an action before it is applied; ``backing_off``: which generations are in a backoff."""
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
            case ev.DismissZygote(zygote=zygote, followed=followed):
                self._check_dismissal(self.board.zygotes[zygote], followed)
            case ev.Resize(size=size, before=before, reason=reason):
                self._check_size(size, before, reason)
            case _:
                pass

    def _check_fork(self, action: ev.ForkWorker) -> None:
        if action.slot in {row.slot for row in self.board.workers.values()}:
            raise Violation(2, f"{action}: the slot is taken")
        candidate = self.board.candidate
        if candidate is not None and candidate.generation == action.generation:
            most = (self.limits.candidate or self.limits).maximum
            if self.board.count(action.generation, ALIVE) >= most:
                raise Violation(10, f"{action}: {most} are needed at most")

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
            raise Violation(6, f"{row} is killed without having been retired")
        early = self.now < row.since + self.limits.drain
        if row.state is WorkerState.RETIRING and not quick and early:
            raise Violation(6, f"{row} is killed before its deadline")

    def check_plan(self, plan: ev.Plan, serving_before: int, promoted: bool) -> None:
        """Check the scoreboard after a plan was applied; ``promoted``: a generation served before it."""
        again = policy.decide(self.board, self.limits, self.now)
        if again.actions:
            raise Violation(1, f"ordered again: {again.actions}")
        room = self._widest.maximum + self._widest.surge
        if len(self.board.workers) > room:
            raise Violation(2, f"{len(self.board.workers)} rows, {room} allowed")
        first = self.first_deadline()
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
        # A ready worker that does not serve waits for a promotion, or for ever.
        for row in self.board.workers.values():
            role = self.board.generations[row.generation].role
            waits = row.state is WorkerState.READY and not row.serving
            if waits and not self.board.stopping and role is not Role.CANDIDATE:
                raise Violation(7, f"{row} will never serve: its generation is {role}")

    def first_deadline(self) -> float | None:
        """Return the first deadline, from the rows alone: it must not share the policy's mistakes."""
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
                allowed = limits.start if zygote.parent is None else limits.boot
                times.append(zygote.since + allowed)
            elif zygote.state is ZygoteState.DISMISSED:
                times.append(zygote.since + limits.dismiss)
            on_trial = zygote.parent is not None and not zygote.adopted
            judged_alone = on_trial and zygote.state is not ZygoteState.DISMISSED
            counts = not judged_alone and zygote.state is not ZygoteState.KILLED
            if counts and zygote.stopped_at is not None:
                times.append(zygote.stopped_at + limits.stopped)
        if self.board.candidate and not self.board.stopping:
            times.append(self.board.candidate.since + limits.start)
        return min(times, default=None)

    def check_rest(self) -> None:
        """Check the scoreboard after a calm: one generation, of the right size, and nothing due."""
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
        if self._world.wake_at is not None:
            raise Violation(4, "at rest nothing is due")
        if any(row.state not in ALIVE for row in board.workers.values()):
            raise Violation(7, "a worker is draining or killed at rest")
