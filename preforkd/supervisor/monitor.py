"""What follows from looks at the pool: facts for the policy, stacks of slow requests, spent workers.

It holds what workers say of themselves against the limits of the settings. What a worker says counts
against itself only; that the pool is to grow is the kernel's word about its queues, too.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from preforkd.config.settings import Settings
from preforkd.core import events as ev
from preforkd.core.model import Limits, WorkerState
from preforkd.core.pool_view import size_of
from preforkd.core.recycling import spread
from preforkd.core.scoreboard import Scoreboard, WorkerRow
from preforkd.linux.memory import Usage
from preforkd.logs import catalog
from preforkd.loop import Loop
from preforkd.supervisor import eventlog, worker_limits
from preforkd.supervisor.memory_sampler import MemorySampler, Reading
from preforkd.supervisor.pool import Pool
from preforkd.supervisor.sampler import PoolSample, Sampler

PERIOD = 1.0
"""Seconds between two looks, at the most."""
_QUICK = 0.04
"""Seconds between two looks at a pool that can grow."""
_URGENT = 0.02
"""Seconds until the next look at such a pool when connections wait."""
_HELD = 0.02
"""Seconds after which a request counts as one that holds its worker."""
_AUDIT = 10.0
"""Seconds between two audits of what the workers have used."""
_LATE = 0.05
"""Seconds between two looks at a worker that is to be killed for its request; less than its farewell."""
_SATURATED = 2.0
"""Seconds of waiting after which it is said that the pool is saturated."""
_REFORK_PAUSE = 60.0
"""Seconds between two reforks that follow from requests, at the least."""
_WORST = 3
_SOON = 0.005
_HELD_UP = 5.0
"""Seconds between two looks that tell that the master itself was held up, and the workers maybe with it."""


class MonitoredService(Protocol):
    """What the overseer needs of the master."""

    board: Scoreboard
    limits: Limits
    gauge: MemorySampler

    @property
    def settings(self) -> Settings:
        """The settings in force."""


class _Told(msgspec.Struct):
    """What was said of a worker's request that began at ``since``."""

    since: float
    slow: bool = False


class _Asked(msgspec.Struct):
    """A worker was asked to show that its loop turns."""

    beats: int
    """How often it had shown that before."""
    since: float


class Monitor:
    """See the module; facts go to ``feed``, and ``changed`` is called after each look."""

    def __init__(
        self,
        loop: Loop,
        service: MonitoredService,
        pool: Pool,
        feed: Callable[[ev.Fact], None],
        changed: Callable[[], None],
    ) -> None:
        self.lookout = Sampler(loop, pool, self._seen, self._listeners)
        self._loop = loop
        self._service = service
        self._pool = pool
        self._feed = feed
        self._changed = changed
        self._told: dict[int, _Told] = {}
        self._late: dict[int, float] = {}
        """Workers that are to be killed for their request, and when that began."""
        self._asked: dict[int, _Asked] = {}
        """Workers that were asked whether their loops turn."""
        self._silent: frozenset[int] = frozenset()
        """Those of them that have not answered since the look before."""
        self._looked_at = float("-inf")
        self._audited_at = float("-inf")
        self._refork_at = float("-inf")
        """Before this, no refork follows from requests."""
        self._weighing = False
        self._saturated_since: float | None = None

    def close(self) -> None:
        """Look no more."""
        self.lookout.close()

    def _seen(self, glance: PoolSample) -> float:
        now = self._loop.time()
        waiting = self._observe(glance, now)
        self._watch_warmth(glance, now)
        self._watch_loops(glance, waiting, now)
        due = [self._watch_requests(glance, now), now + self._pace(waiting)]
        if now - self._audited_at >= _AUDIT:
            self._audited_at = now
            self._audit()
        self._changed()
        return max(_SOON, min(due) - now)

    def _pace(self, waiting: int) -> float:
        timeouts = self._service.settings.timeouts
        board, limits = self._service.board, self._service.limits
        periods = [PERIOD, timeouts.request, timeouts.slow, timeouts.heartbeat]
        if limits.elastic and size_of(board, limits) < limits.maximum:
            periods.append(_URGENT if waiting else _QUICK)
        return min(period for period in periods if period > 0)

    # --- the pool as a whole ---------------------------------------------------------------------

    def _observe(self, glance: PoolSample, now: float) -> int:
        """Report a look; return how many connections wait."""
        held = sum(now - since >= _HELD for since in glance.busy.values())
        current = self._service.board.current
        waiting = self._pool.waiting(current.generation) if current else 0
        # A worker whose loop stands still is not idle, whatever it says.
        busy = self._silent.union(glance.busy)
        self._feed(ev.PoolObserved(busy, held, waiting if busy else 0))
        return waiting

    def _listeners(self) -> list[socket.socket]:
        current = self._service.board.current
        return self._pool.listeners(current.generation) if current else []

    def settled(self) -> None:
        """Say that the pool is saturated, or is not any more; to be called when facts were applied."""
        now = self._loop.time()
        since = self._service.board.demand.waiting_since
        if since is None:
            if self._saturated_since is not None:
                seconds = now - self._saturated_since
                self._saturated_since = None
                text = f"no connection waits any more, after {seconds:.1f} s"
                eventlog.say(catalog.SATURATED, logging.INFO, text)
        elif self._saturated_since is None and now - since >= _SATURATED:
            self._saturated_since = since
            waiting = self._service.board.demand.look.waiting
            text = f"all workers have been busy for {now - since:.1f} s, and {waiting} connections wait"
            eventlog.say(catalog.SATURATED, logging.WARNING, text)

    # --- loops -----------------------------------------------------------------------------------

    def _watch_loops(self, glance: PoolSample, waiting: int, now: float) -> None:
        """Ask workers whether their loops turn, and act on those that do not answer.

        Each second while connections wait, and now and then those that have connections open.
        """
        limit = self._service.settings.timeouts.heartbeat
        if now - self._looked_at > _HELD_UP:
            self._asked.clear()
        self._looked_at = now
        asked, self._asked = self._asked, {}
        excused = frozenset() if self._turns_beside_requests() else glance.busy.keys()
        every, asks = PERIOD if waiting else _AUDIT, False
        for row in self._judged() if limit else ():
            worker, beats = row.worker, glance.beats.get(row.worker, 0)
            if worker in excused:
                continue
            before = asked.get(worker)
            if before is None or (before.beats != beats and now - before.since >= every):
                if not waiting and not glance.connections.get(worker):
                    continue
                self._pool.rouse(worker)
                before, asks = _Asked(beats, now), True
            self._asked[worker] = before
            if before.beats == beats and now - before.since >= limit and not row.overdue:
                text = f"its loop has not turned for {now - before.since:.1f} s, and clients wait"
                self._feed(ev.WorkerOverdue(worker, text))
        silent = {
            worker
            for worker, one in asked.items()
            if worker in self._asked and one.beats == glance.beats.get(worker, 0)
        }
        for worker in asked.keys() - silent - self._late.keys():
            known = self._service.board.workers.get(worker)
            if known is not None and known.overdue:
                self._feed(ev.WorkerRecovered(worker))
        self._silent = frozenset(silent)
        self.lookout.held = bool(silent) or asks

    def _turns_beside_requests(self) -> bool:
        settings = self._service.settings
        return settings.app.target.startswith("asgi:") or settings.workers.threads > 1

    def _judged(self) -> Iterator[WorkerRow]:
        for row in self._service.board.workers.values():
            if row.serving and row.state is WorkerState.READY and row.stopped_at is None:
                yield row

    # --- requests --------------------------------------------------------------------------------

    def _watch_requests(self, glance: PoolSample, now: float) -> float:
        """Act on requests that take long; return when the next one of those that run is due."""
        timeouts = self._service.settings.timeouts
        due = [float("inf")]
        self._told = {
            worker: told
            for worker, told in self._told.items()
            if glance.busy.get(worker) == told.since
        }
        for worker, since in list(self._late.items()):
            if glance.busy.get(worker) != since:
                # The one that it has now, or will have, is nobody's fault.
                del self._late[worker]
                self._feed(ev.WorkerRecovered(worker))
        for worker, since in glance.busy.items():
            row = self._service.board.workers.get(worker)
            if row is None or row.overdue:
                continue
            told = self._told.setdefault(worker, _Told(since))
            if timeouts.request:
                if now >= since + timeouts.request:
                    self._late[worker] = since
                    self._overdue(row, timeouts.request)
                    continue
                due.append(since + timeouts.request)
            if timeouts.slow and not told.slow:
                if now >= since + timeouts.slow:
                    told.slow = True
                    self._slow(row, since)
                else:
                    due.append(since + timeouts.slow)
        if self._late:
            due.append(now + _LATE)
        return min(due)

    def _overdue(self, row: WorkerRow, limit: float) -> None:
        line = self._pool.busy_with(row.worker) or "a request"
        self._feed(ev.WorkerOverdue(row.worker, f"{line} took longer than {limit:g} s"))

    def _slow(self, row: WorkerRow, since: float) -> None:
        line = self._pool.busy_with(row.worker)

        def tell(stacks: str) -> None:
            seconds = self._loop.time() - since
            what = f"is slow: {line or 'a request'} has taken {seconds:.1f} s so far"
            eventlog.tell_stacks(row, what, line, stacks, catalog.REQUEST_SLOW)

        self._pool.ask_stacks(row.worker, self._service.limits.farewell, tell)

    # --- reforks ---------------------------------------------------------------------------------

    def warmest(self) -> int:
        """Return the worker that has answered the most requests; 0 if there is none."""
        requests = self._pool.glance(self._loop.time()).requests
        return max(requests, key=requests.__getitem__, default=0)

    def _watch_warmth(self, glance: PoolSample, now: float) -> None:
        after = self._service.settings.memory.refork.after
        board = self._service.board
        current = board.current
        if not after or current is None or current.refork.due or now < self._refork_at:
            return
        zygote = board.usable_zygote(current.generation)
        litter = {
            row.worker: glance.requests.get(row.worker, 0)
            for row in board.workers_of(current.generation)
            if zygote is not None and row.zygote == zygote.zygote
        }
        worker = max(litter, key=litter.__getitem__, default=0)
        if litter.get(worker, 0) >= after:
            self._refork_at = now + _REFORK_PAUSE
            reason = f"worker {board.workers[worker].slot} has answered {litter[worker]} requests"
            self._feed(ev.ReforkRequested(worker, reason))

    # --- what workers have used ------------------------------------------------------------------

    def _audit(self) -> None:
        settings = self._service.settings
        for row, pid in self._audited():
            handle = self._pool.worker(row.worker)
            if handle is None:
                continue
            reading = handle.board.read(self._loop.time())
            share = spread(row.worker)
            reason = worker_limits.reason_to_replace(pid, settings, reading.connections, share)
            if reason:
                self._feed(ev.WorkerSpent(row.worker, reason))
        if settings.memory.limit and not self._weighing:
            self._weigh(settings.memory.limit)

    def _audited(self) -> Iterator[tuple[WorkerRow, int]]:
        for row in self._service.board.workers.values():
            if row.state is WorkerState.READY and not row.spent and row.pid is not None:
                yield row, row.pid

    def _weigh(self, limit: int) -> None:
        # Beside the loop: reading the memory of many workers takes a while.
        rows = list(self._audited())

        def weighed(readings: dict[int, Reading]) -> None:
            self._weighing = False
            self._retire_heavy(rows, readings, limit)

        self._weighing = True
        self._service.gauge.read([pid for _, pid in rows], weighed)

    def _retire_heavy(
        self, rows: list[tuple[WorkerRow, int]], readings: dict[int, Reading], limit: int
    ) -> None:
        gauge = self._service.gauge
        weights: list[tuple[int, int | None, WorkerRow]] = []
        for row, pid in rows:
            usage = readings[pid]
            if isinstance(usage, Usage):
                weights.append((usage.private, gauge.growth(pid, usage), row))
        weights.sort(key=lambda weight: -weight[0])
        for private, growth, row in weights:
            if private > limit * spread(row.worker):
                worst = worker_limits.heaviest([(w[0], w[2].slot) for w in weights[:_WORST]])
                reason = worker_limits.too_heavy(private, growth)
                self._feed(ev.WorkerSpent(row.worker, f"{reason} ({worst})"))
