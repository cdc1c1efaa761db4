"""The scoreboard: what is known of every generation, zygote and worker.

`Scoreboard.apply` takes facts and performed actions and only writes down.  It wishes for nothing: that
is `preforkd.core.policy`.  It copes with unknown numbers and with messages from workers that have
already left: what children say is gossip, and arrives late.
"""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from preforkd.core import backoff, events as ev
from preforkd.core.model import (
    ALIVE,
    COMING,
    USABLE,
    Blame,
    Failure,
    Role,
    WorkerState,
    ZygoteState,
)


@dataclass(slots=True)
class WorkerRow:
    """One worker; ``since`` is when its state began, ``born`` when its fork was asked for."""

    worker: int
    slot: int
    generation: int
    zygote: int
    state: WorkerState
    born: float
    since: float
    pid: int | None = None
    serving: bool = False
    was_ready: bool = False
    told: bool = False
    """It was retired or killed by us, so that its end is no failure."""


@dataclass(slots=True)
class ZygoteRow:
    """One zygote."""

    zygote: int
    generation: int
    state: ZygoteState
    since: float
    pid: int | None = None


@dataclass(slots=True)
class GenerationRow:
    """One generation: its role, when it began, and how its starts have failed of late."""

    generation: int
    role: Role
    since: float
    strikes: backoff.Strikes = field(default_factory=backoff.Strikes)
    failure: Failure | None = None
    """The last failure of a start; what a candidate is abandoned for."""
    fatal: bool = False
    """The failure is one that a candidate does not retry."""


class Scoreboard:
    """Rows of the pool; see the module."""

    def __init__(self) -> None:
        self.workers: dict[int, WorkerRow] = {}
        self.zygotes: dict[int, ZygoteRow] = {}
        self.generations: dict[int, GenerationRow] = {}
        self.stopping: ev.StopRequested | None = None
        self.finished = False
        self.last_worker = 0
        self.last_zygote = 0
        self.serving_lost_at: float | None = None
        """Since when the current generation has had no serving worker; None while it has one."""

    def copy(self) -> "Scoreboard":
        """Return an independent scoreboard with equal rows."""
        twin = copy(self)
        twin.workers = {key: copy(row) for key, row in self.workers.items()}
        twin.zygotes = {key: copy(row) for key, row in self.zygotes.items()}
        twin.generations = {key: copy(row) for key, row in self.generations.items()}
        return twin

    # --- questions -------------------------------------------------------------------------------

    def with_role(self, role: Role) -> GenerationRow | None:
        """Return the newest generation in this role."""
        rows = [row for row in self.generations.values() if row.role is role]
        return max(rows, key=lambda row: row.generation, default=None)

    @property
    def current(self) -> GenerationRow | None:
        """The newest generation that serves."""
        return self.with_role(Role.CURRENT)

    @property
    def candidate(self) -> GenerationRow | None:
        """The generation that is being brought up."""
        return self.with_role(Role.CANDIDATE)

    def workers_of(self, generation: int) -> Iterator[WorkerRow]:
        """Yield the workers of a generation, the oldest first."""
        return (row for row in self.workers.values() if row.generation == generation)

    def count(self, generation: int, states: frozenset[WorkerState]) -> int:
        """Count the workers of a generation that are in one of these states."""
        return sum(row.state in states for row in self.workers_of(generation))

    def usable_zygote(self, generation: int) -> ZygoteRow | None:
        """Return the generation's zygote that loads or is ready."""
        rows = (row for row in self.zygotes.values() if row.generation == generation)
        return next((row for row in rows if row.state in USABLE), None)

    def serving(self) -> int:
        """Count the workers that were told to serve and not yet to leave, of every generation."""
        return sum(row.serving and row.state is WorkerState.READY for row in self.workers.values())

    def free_slot(self) -> int:
        """Return the lowest slot (from 1) that no worker sits in, the dying included."""
        taken = {row.slot for row in self.workers.values()}
        return next(slot for slot in range(1, len(taken) + 2) if slot not in taken)

    # --- facts -----------------------------------------------------------------------------------

    def apply(self, event: ev.Fact | ev.Action, now: float) -> None:
        """Write down one fact or one performed action; ``now`` is monotonic seconds."""
        _APPLY[type(event)](self, event, now)
        self._prune()
        self._watch_serving(now)

    def _prune(self) -> None:
        peopled = {row.generation for row in self.workers.values()}
        peopled.update(row.generation for row in self.zygotes.values())
        for number, row in list(self.generations.items()):
            if row.role in {Role.OLD, Role.ABANDONED} and number not in peopled:
                del self.generations[number]

    def _watch_serving(self, now: float) -> None:
        if self.current is None or self.serving():
            self.serving_lost_at = None
        elif self.serving_lost_at is None:
            self.serving_lost_at = now

    def _generation_requested(self, event: ev.GenerationRequested, now: float) -> None:
        self.generations[event.generation] = GenerationRow(event.generation, Role.CANDIDATE, now)

    def _spawn_zygote(self, event: ev.SpawnZygote, now: float) -> None:
        self.last_zygote = max(self.last_zygote, event.zygote)
        self.zygotes[event.zygote] = ZygoteRow(
            event.zygote, event.generation, ZygoteState.LOADING, now
        )

    def _zygote_spawned(self, event: ev.ZygoteSpawned, _now: float) -> None:
        if row := self.zygotes.get(event.zygote):
            row.pid = event.pid

    def _zygote_loaded(self, event: ev.ZygoteLoaded, now: float) -> None:
        row = self.zygotes.get(event.zygote)
        if row and row.state is ZygoteState.LOADING:
            row.state, row.since = ZygoteState.READY, now

    def _zygote_failed(self, event: ev.ZygoteFailed, now: float) -> None:
        row = self.zygotes.get(event.zygote)
        if not row:
            return
        if row.state in USABLE:
            self._strike(row.generation, event.failure, now, fatal=True)
        if row.pid is None:
            del self.zygotes[event.zygote]
        elif row.state is not ZygoteState.KILLED:
            row.state, row.since = ZygoteState.DISMISSED, now

    def _zygote_exited(self, event: ev.ZygoteExited, now: float) -> None:
        row = self.zygotes.pop(event.zygote, None)
        if not row or row.state not in USABLE:
            return
        loading = row.state is ZygoteState.LOADING
        if loading or now - row.since < backoff.SHORT_LIFE:
            doing = "loading the application" if loading else "forking"
            failure = Failure(Blame.APPLICATION, f"the zygote ended while {doing}: {event.reason}")
            self._strike(row.generation, failure, now, fatal=loading)

    def _dismiss_zygote(self, event: ev.DismissZygote, now: float) -> None:
        if row := self.zygotes.get(event.zygote):
            row.state, row.since = ZygoteState.DISMISSED, now

    def _kill_zygote(self, event: ev.KillZygote, now: float) -> None:
        row = self.zygotes.get(event.zygote)
        if not row:
            return
        if row.state is ZygoteState.LOADING:
            failure = Failure(Blame.APPLICATION, "loading the application took too long")
            self._strike(row.generation, failure, now, fatal=True)
        row.state, row.since = ZygoteState.KILLED, now

    def _fork_worker(self, event: ev.ForkWorker, now: float) -> None:
        self.last_worker = max(self.last_worker, event.worker)
        self.workers[event.worker] = WorkerRow(
            event.worker,
            event.slot,
            event.generation,
            event.zygote,
            WorkerState.FORKING,
            born=now,
            since=now,
        )

    def _worker_forked(self, event: ev.WorkerForked, _now: float) -> None:
        row = self.workers.get(event.worker)
        if not row:
            return
        row.pid = event.pid
        if row.state is WorkerState.FORKING:
            row.state = WorkerState.STARTING

    def _worker_ready(self, event: ev.WorkerReady, now: float) -> None:
        row = self.workers.get(event.worker)
        if not row or row.state not in COMING:
            return
        row.state, row.since, row.was_ready = WorkerState.READY, now, True
        if generation := self.generations.get(row.generation):
            generation.strikes = generation.strikes.forgive_boots()

    def _worker_failed(self, event: ev.WorkerFailed, now: float) -> None:
        row = self.workers.get(event.worker)
        if not row or row.state not in COMING:
            return
        self._strike(row.generation, event.failure, now, fatal=True)
        row.state, row.since, row.told = WorkerState.RETIRING, now, True

    def _serve_worker(self, event: ev.ServeWorker, _now: float) -> None:
        if row := self.workers.get(event.worker):
            row.serving = True

    def _worker_leaving(self, event: ev.WorkerLeaving, now: float) -> None:
        row = self.workers.get(event.worker)
        if row and row.state in ALIVE:
            row.state, row.since, row.told = WorkerState.RETIRING, now, True

    def _retire_worker(self, event: ev.RetireWorker, now: float) -> None:
        row = self.workers.get(event.worker)
        if row and row.state in ALIVE:
            row.state, row.since, row.told = WorkerState.RETIRING, now, True

    def _kill_worker(self, event: ev.KillWorker, now: float) -> None:
        row = self.workers.get(event.worker)
        if not row:
            return
        if row.state in COMING and not row.told and not self.stopping:
            self._strike(row.generation, Failure(Blame.APPLICATION, event.reason), now, fatal=True)
        if row.pid is None:
            # Nobody to kill: its channel is closed, and should it still be born, it leaves at once.
            del self.workers[event.worker]
        else:
            row.state, row.since, row.told = WorkerState.KILLED, now, True

    def _worker_exited(self, event: ev.WorkerExited, now: float) -> None:
        row = self.workers.pop(event.worker, None)
        if not row or row.told:
            return
        if not row.was_ready:
            failure = Failure(
                Blame.APPLICATION, f"worker {row.slot} ended before it was ready: {event.reason}"
            )
            self._strike(row.generation, failure, now, fatal=True)
        elif generation := self.generations.get(row.generation):
            short = now - row.since < backoff.SHORT_LIFE
            generation.strikes = generation.strikes.after_death(now, short=short)

    def _promote(self, event: ev.Promote, _now: float) -> None:
        if (current := self.current) is not None:
            current.role = Role.OLD
        self.generations[event.generation].role = Role.CURRENT

    def _abandon(self, event: ev.Abandon, _now: float) -> None:
        if row := self.generations.get(event.generation):
            row.role, row.failure = Role.ABANDONED, event.failure

    def _stop_requested(self, event: ev.StopRequested, _now: float) -> None:
        quick = event.quick or (self.stopping is not None and self.stopping.quick)
        self.stopping = ev.StopRequested(quick=quick)

    def _finish(self, _event: ev.Finish, _now: float) -> None:
        self.finished = True

    def _strike(self, generation: int, failure: Failure, now: float, *, fatal: bool) -> None:
        if row := self.generations.get(generation):
            row.strikes = row.strikes.after_failed_start(now)
            row.failure, row.fatal = failure, row.fatal or fatal


_APPLY: dict[type, Callable[[Scoreboard, Any, float], None]] = {
    ev.GenerationRequested: Scoreboard._generation_requested,
    ev.ZygoteSpawned: Scoreboard._zygote_spawned,
    ev.ZygoteLoaded: Scoreboard._zygote_loaded,
    ev.ZygoteFailed: Scoreboard._zygote_failed,
    ev.ZygoteExited: Scoreboard._zygote_exited,
    ev.WorkerForked: Scoreboard._worker_forked,
    ev.WorkerReady: Scoreboard._worker_ready,
    ev.WorkerFailed: Scoreboard._worker_failed,
    ev.WorkerLeaving: Scoreboard._worker_leaving,
    ev.WorkerExited: Scoreboard._worker_exited,
    ev.StopRequested: Scoreboard._stop_requested,
    ev.SpawnZygote: Scoreboard._spawn_zygote,
    ev.DismissZygote: Scoreboard._dismiss_zygote,
    ev.KillZygote: Scoreboard._kill_zygote,
    ev.ForkWorker: Scoreboard._fork_worker,
    ev.ServeWorker: Scoreboard._serve_worker,
    ev.RetireWorker: Scoreboard._retire_worker,
    ev.KillWorker: Scoreboard._kill_worker,
    ev.Promote: Scoreboard._promote,
    ev.Abandon: Scoreboard._abandon,
    ev.Finish: Scoreboard._finish,
}
