"""The scoreboard: what is known of every generation, zygote and worker.

`Scoreboard.apply` takes facts and actions, and only records; `preforkd.core.policy` decides. Unknown numbers and
events that do not fit a row's state change nothing: messages of children are not trusted, and may arrive after
the child has gone.
"""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from preforkd.core import backoff, events as ev
from preforkd.core.demand import Demand
from preforkd.core.model import ALIVE, BOOTING, USABLE, Role, WorkerState, ZygoteState
from preforkd.core.rows import GenerationRow, ReforkAttempt, WorkerRow, ZygoteRow
from preforkd.errors import Blame, Failure


class Scoreboard:
    """The rows of the pool, and its demand."""

    def __init__(self) -> None:
        self.workers: dict[int, WorkerRow] = {}
        self.zygotes: dict[int, ZygoteRow] = {}
        self.generations: dict[int, GenerationRow] = {}
        self.stopping: ev.StopRequested | None = None
        self.finished = False
        self.demand = Demand()
        self.last_worker = 0
        self.last_zygote = 0
        self.serving_lost_at: float | None = None
        """Since when the current generation has had no serving worker; None while it has one."""
        self.fewer_since: dict[int, float] = {}
        """For each number of workers that once served: since when fewer have."""
        self._served = 0

    def copy(self) -> "Scoreboard":
        """Return an independent scoreboard with equal rows."""
        twin = Scoreboard()
        vars(twin).update(vars(self))
        twin.workers = {key: replace(row) for key, row in self.workers.items()}
        twin.zygotes = {key: replace(row) for key, row in self.zygotes.items()}
        twin.generations = {key: replace(row) for key, row in self.generations.items()}
        return twin

    # --- queries ---------------------------------------------------------------------------------

    def with_role(self, role: Role) -> GenerationRow | None:
        """Return the newest generation in this role."""
        rows = [row for row in self.generations.values() if row.role is role]
        return max(rows, key=lambda row: row.generation, default=None)

    @property
    def current(self) -> GenerationRow | None:
        """The generation whose workers serve."""
        return self.with_role(Role.CURRENT)

    @property
    def candidate(self) -> GenerationRow | None:
        """The generation that is starting."""
        return self.with_role(Role.CANDIDATE)

    def workers_of(self, generation: int) -> Iterator[WorkerRow]:
        """Yield the workers of a generation, the oldest first."""
        return (row for row in self.workers.values() if row.generation == generation)

    def count(self, generation: int, states: frozenset[WorkerState]) -> int:
        """Count the workers of a generation that are in one of these states."""
        return sum(row.state in states for row in self.workers_of(generation))

    def usable_zygote(self, generation: int) -> ZygoteRow | None:
        """Return the generation's newest zygote that is ready, or else its newest that is loading."""
        rows = [row for row in self.zygotes.values() if row.generation == generation]
        usable = [row for row in rows if row.state in USABLE]
        usable.sort(key=lambda row: (row.state is ZygoteState.READY, row.zygote))
        return usable[-1] if usable else None

    def serving(self) -> int:
        """Count the serving workers of every generation; a draining one no longer counts."""
        return sum(row.serving and row.state is WorkerState.READY for row in self.workers.values())

    def free_slot(self) -> int:
        """Return the lowest slot (from 1) that no worker occupies, killed ones included."""
        taken = {row.slot for row in self.workers.values()}
        return next(slot for slot in range(1, len(taken) + 2) if slot not in taken)

    # --- facts -----------------------------------------------------------------------------------

    def apply(self, event: ev.Fact | ev.Action, now: float) -> None:
        """Record one fact or action; ``now`` is monotonic seconds."""
        _APPLY[type(event)](self, event, now)
        self._prune()
        self._track_serving(now)

    def _prune(self) -> None:
        in_use = {row.generation for row in self.workers.values()}
        in_use.update(row.generation for row in self.zygotes.values())
        for number, row in list(self.generations.items()):
            if row.role in {Role.OLD, Role.ABANDONED} and number not in in_use:
                del self.generations[number]

    def _track_serving(self, now: float) -> None:
        if self.current is None or self.serving():
            self.serving_lost_at = None
        elif self.serving_lost_at is None:
            self.serving_lost_at = now
        self._track_losses(now)

    def _track_losses(self, now: float) -> None:
        # A new dict: copies of the scoreboard share this one.
        serving = self.serving()
        if serving == self._served:
            return
        lost = dict.fromkeys(range(serving + 1, self._served + 1), now)
        kept = {number: when for number, when in self.fewer_since.items() if number > serving}
        self.fewer_since, self._served = kept | lost, serving

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
        if row.state in USABLE and row.parent is None:
            self._count_failed_start(row.generation, event.failure, now, fatal=True)
        elif row.state in USABLE:
            row.failure = event.failure
            return  # for recycling.judge_refork
        if row.pid is None:
            del self.zygotes[event.zygote]
        elif row.state is not ZygoteState.KILLED:
            row.state, row.since = ZygoteState.DISMISSED, now

    def _zygote_exited(self, event: ev.ZygoteExited, now: float) -> None:
        row = self.zygotes.get(event.zygote)
        if not row:
            return
        if row.parent is not None and not row.adopted and row.state in USABLE:
            # For recycling.judge_refork; there is no process to wait for any more.
            reason = f"the zygote forked from a worker exited: {event.reason}"
            row.failure = row.failure or Failure(Blame.APPLICATION, reason)
            row.state, row.pid = ZygoteState.LOADING, None
            return
        del self.zygotes[event.zygote]
        if row.state not in USABLE:
            return
        loading = row.state is ZygoteState.LOADING
        if loading or now - row.since < backoff.SHORT_LIFE:
            doing = "loading the application" if loading else "forking"
            failure = Failure(Blame.APPLICATION, f"the zygote exited while {doing}: {event.reason}")
            self._count_failed_start(row.generation, failure, now, fatal=loading)

    def _dismiss_zygote(self, event: ev.DismissZygote, now: float) -> None:
        if row := self.zygotes.get(event.zygote):
            row.state, row.since = ZygoteState.DISMISSED, now

    def _kill_zygote(self, event: ev.KillZygote, now: float) -> None:
        row = self.zygotes.get(event.zygote)
        if not row:
            return
        if row.state is ZygoteState.LOADING and row.parent is None:
            failure = Failure(Blame.APPLICATION, event.reason)
            self._count_failed_start(row.generation, failure, now, fatal=True)
        self._end_zygote(row, now)

    def _zygote_stopped(self, event: ev.ZygoteStopped, now: float) -> None:
        if row := self.zygotes.get(event.zygote):
            row.stopped_at = (row.stopped_at or now) if event.stopped else None

    def _end_zygote(self, row: ZygoteRow, now: float) -> None:
        if row.pid is None:
            # No process to wait for; if it is forked after all, it is killed then.
            del self.zygotes[row.zygote]
        else:
            row.state, row.since = ZygoteState.KILLED, now

    # --- a zygote that is forked from a worker ----------------------------------------------------

    def _refork_requested(self, event: ev.ReforkRequested, _now: float) -> None:
        current = self.current
        if current is not None:
            asked = replace(
                current.refork,
                reason=event.reason,
                warmest=event.warmest,
                guarded=event.guarded,
            )
            current.refork = replace(asked, retry_at=float("-inf")) if event.urgent else asked

    def _fork_zygote(self, event: ev.ForkZygote, now: float) -> None:
        self.last_zygote = max(self.last_zygote, event.zygote)
        self.zygotes[event.zygote] = ZygoteRow(
            event.zygote, event.generation, ZygoteState.LOADING, now, parent=event.worker
        )

    def _adopt_zygote(self, event: ev.AdoptZygote, _now: float) -> None:
        if row := self.zygotes.get(event.zygote):
            row.adopted = True
            if generation := self.generations.get(row.generation):
                generation.refork = ReforkAttempt()

    def _give_up_refork(self, event: ev.GiveUpRefork, now: float) -> None:
        if row := self.zygotes.get(event.zygote):
            if generation := self.generations.get(row.generation):
                generation.refork = generation.refork.after_failure(now)
            self._end_zygote(row, now)

    # --- workers ---------------------------------------------------------------------------------

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

    def _worker_forked(self, event: ev.WorkerForked, now: float) -> None:
        row = self.workers.get(event.worker)
        if not row:
            return
        row.pid = event.pid
        if row.state is not WorkerState.FORKING:
            return
        row.state, row.since = WorkerState.STARTING, now
        for other in self.workers.values():
            if other.zygote == row.zygote and other.state is WorkerState.FORKING:
                other.since = now  # the zygote forks one after the other

    def _worker_ready(self, event: ev.WorkerReady, now: float) -> None:
        row = self.workers.get(event.worker)
        if not row or row.state not in BOOTING:
            return
        row.state, row.since, row.was_ready = WorkerState.READY, now, True
        if generation := self.generations.get(row.generation):
            generation.failure_streak = generation.failure_streak.after_successful_start()

    def _worker_failed(self, event: ev.WorkerFailed, now: float) -> None:
        row = self.workers.get(event.worker)
        if not row or row.state not in BOOTING:
            return
        self._start_failed(row, event.failure, now)
        row.state, row.since, row.end_expected = WorkerState.RETIRING, now, True

    def _serve_worker(self, event: ev.ServeWorker, _now: float) -> None:
        if row := self.workers.get(event.worker):
            row.serving = True

    def _worker_retires(self, event: ev.WorkerLeaving | ev.RetireWorker, now: float) -> None:
        row = self.workers.get(event.worker)
        if row and row.state in ALIVE:
            row.state, row.since, row.end_expected = WorkerState.RETIRING, now, True

    def _kill_worker(self, event: ev.KillWorker, now: float) -> None:
        row = self.workers.get(event.worker)
        if not row:
            return
        if row.state in BOOTING and not row.end_expected and not self.stopping:
            self._start_failed(row, Failure(Blame.APPLICATION, event.reason), now)
        if row.pid is None:
            # No process to kill: its channel is closed; if it is forked after all, it exits at once.
            del self.workers[event.worker]
        else:
            row.state, row.since, row.end_expected = WorkerState.KILLED, now, True

    def _worker_exited(self, event: ev.WorkerExited, now: float) -> None:
        row = self.workers.pop(event.worker, None)
        if not row or row.end_expected:
            return
        if not row.was_ready:
            failure = Failure(
                Blame.APPLICATION, f"worker {row.slot} exited before it was ready: {event.reason}"
            )
            self._start_failed(row, failure, now)
        elif generation := self.generations.get(row.generation):
            short = now - row.since < backoff.SHORT_LIFE
            generation.failure_streak = generation.failure_streak.after_death(now, short=short)

    def _worker_limit_reached(
        self, event: ev.WorkerLimitReached | ev.RecycleWorker, _now: float
    ) -> None:
        row = self.workers.get(event.worker)
        if row and row.state is WorkerState.READY:
            row.limit_reached = row.limit_reached or event.reason

    def _worker_overdue(self, event: ev.WorkerOverdue, _now: float) -> None:
        row = self.workers.get(event.worker)
        if row and row.pid is not None and row.state is not WorkerState.KILLED:
            row.overdue = row.overdue or event.reason

    def _worker_recovered(self, event: ev.WorkerRecovered, _now: float) -> None:
        if row := self.workers.get(event.worker):
            row.overdue, row.dumped_at = "", None

    def _dump_worker(self, event: ev.DumpWorker, now: float) -> None:
        if row := self.workers.get(event.worker):
            row.dumped_at = now

    def _worker_stopped(self, event: ev.WorkerStopped, now: float) -> None:
        row = self.workers.get(event.worker)
        if row is None:
            return
        if not event.stopped:
            row.stopped_at = None
        elif row.stopped_at is None:
            row.stopped_at = now

    def _start_failed(self, row: WorkerRow, failure: Failure, now: float) -> None:
        zygote = self.zygotes.get(row.zygote)
        if zygote is not None and zygote.parent is not None and not zygote.adopted:
            zygote.failure = zygote.failure or failure
        else:
            self._count_failed_start(row.generation, failure, now, fatal=True, begun=row.born)

    # --- the pool as a whole ---------------------------------------------------------------------

    def _pool_observed(self, event: ev.PoolObserved, now: float) -> None:
        idle = sum(
            row.serving and row.state is WorkerState.READY and row.worker not in event.busy
            for row in self.workers.values()
        )
        self.demand = self.demand.after_sample(event, idle, now)

    def _memory_short(self, _event: ev.MemoryShort, _now: float) -> None:
        self.demand = replace(self.demand, memory_short=True)

    def _resize(self, event: ev.Resize, now: float) -> None:
        self.demand = self.demand.resized(event.size, event.before, now)

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

    def _count_failed_start(
        self,
        generation: int,
        failure: Failure,
        now: float,
        *,
        fatal: bool,
        begun: float = float("inf"),
    ) -> None:
        if row := self.generations.get(generation):
            row.failure_streak = row.failure_streak.after_failed_start(now, begun=begun)
            row.failure, row.fatal = failure, row.fatal or fatal


_APPLY: dict[type, Callable[[Scoreboard, Any, float], None]] = {
    ev.GenerationRequested: Scoreboard._generation_requested,
    ev.ZygoteSpawned: Scoreboard._zygote_spawned,
    ev.ZygoteLoaded: Scoreboard._zygote_loaded,
    ev.ZygoteFailed: Scoreboard._zygote_failed,
    ev.ZygoteExited: Scoreboard._zygote_exited,
    ev.ZygoteStopped: Scoreboard._zygote_stopped,
    ev.WorkerForked: Scoreboard._worker_forked,
    ev.WorkerReady: Scoreboard._worker_ready,
    ev.WorkerFailed: Scoreboard._worker_failed,
    ev.WorkerLeaving: Scoreboard._worker_retires,
    ev.WorkerExited: Scoreboard._worker_exited,
    ev.WorkerLimitReached: Scoreboard._worker_limit_reached,
    ev.WorkerOverdue: Scoreboard._worker_overdue,
    ev.WorkerRecovered: Scoreboard._worker_recovered,
    ev.WorkerStopped: Scoreboard._worker_stopped,
    ev.PoolObserved: Scoreboard._pool_observed,
    ev.MemoryShort: Scoreboard._memory_short,
    ev.ReforkRequested: Scoreboard._refork_requested,
    ev.StopRequested: Scoreboard._stop_requested,
    ev.SpawnZygote: Scoreboard._spawn_zygote,
    ev.ForkZygote: Scoreboard._fork_zygote,
    ev.AdoptZygote: Scoreboard._adopt_zygote,
    ev.GiveUpRefork: Scoreboard._give_up_refork,
    ev.DismissZygote: Scoreboard._dismiss_zygote,
    ev.KillZygote: Scoreboard._kill_zygote,
    ev.ForkWorker: Scoreboard._fork_worker,
    ev.ServeWorker: Scoreboard._serve_worker,
    ev.RecycleWorker: Scoreboard._worker_limit_reached,
    ev.DumpWorker: Scoreboard._dump_worker,
    ev.Resize: Scoreboard._resize,
    ev.RetireWorker: Scoreboard._worker_retires,
    ev.KillWorker: Scoreboard._kill_worker,
    ev.Promote: Scoreboard._promote,
    ev.Abandon: Scoreboard._abandon,
    ev.Finish: Scoreboard._finish,
}
