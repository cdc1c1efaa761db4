"""Derive facts from samples of the pool: demand, overdue requests, workers that reached a limit.

The monitor compares the workers' slots with the limits of the settings. A slot is written by its worker, so it
has consequences for that worker only; whether the pool grows depends on the kernel's backlogs as well.
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
from preforkd.core.rows import WorkerRow
from preforkd.core.scoreboard import Scoreboard
from preforkd.linux.memory import Usage
from preforkd.logs import catalog
from preforkd.loop import Loop
from preforkd.supervisor import eventlog, worker_limits
from preforkd.supervisor.memory_sampler import MemorySampler, Reading
from preforkd.supervisor.pool import Pool
from preforkd.supervisor.sampler import PoolSample, Sampler

PERIOD = 1.0
"""Longest time between two samples, in seconds."""
_ELASTIC_PERIOD = 0.04
"""Seconds between two samples of a pool that can grow."""
_BACKLOG_PERIOD = 0.02
"""Seconds between two samples of such a pool while connections wait."""
_LONG_REQUEST = 0.02
"""Seconds after which a request counts as long: its worker is not about to become idle."""
_LIMITS_PERIOD = 10.0
"""Seconds between two checks of the workers' limits."""
_OVERDUE_PERIOD = 0.05
"""Seconds between two samples while a worker waits to be killed for its request; less than the time it has."""
_SATURATED = 2.0
"""Seconds of waiting after which saturation is logged."""
_REFORK_PAUSE = 60.0
"""Shortest time between two reforks that requests have triggered, in seconds."""
_REQUESTS_BEFORE_ONCE = 25
"""Requests after which a worker has built most of what it will build, for ``memory.refork: once``."""
_HEAVIEST_LISTED = 3
_SHORTEST_PERIOD = 0.005
_MASTER_DELAYED = 5.0
"""Seconds between two samples after which the master itself was delayed, and the workers maybe with it."""


class MonitoredService(Protocol):
    """What the monitor needs of the master."""

    board: Scoreboard
    limits: Limits
    memory_sampler: MemorySampler

    @property
    def settings(self) -> Settings:
        """The settings in force."""


class _RequestReport(msgspec.Struct):
    """What was logged about the request of a worker that began at ``since``."""

    since: float
    slow: bool = False


class _HeartbeatProbe(msgspec.Struct):
    """A heartbeat that was requested from a worker."""

    beats: int
    """Its heartbeat counter at that time."""
    since: float


class Monitor:
    """See the module; facts go to ``feed``, and ``changed`` is called after each sample."""

    def __init__(
        self,
        loop: Loop,
        service: MonitoredService,
        pool: Pool,
        feed: Callable[[ev.Fact], None],
        changed: Callable[[], None],
    ) -> None:
        self.sampler = Sampler(loop, pool, self._on_sample, self._listeners)
        self._loop = loop
        self._service = service
        self._pool = pool
        self._feed = feed
        self._changed = changed
        self._reports: dict[int, _RequestReport] = {}
        self._overdue_workers: dict[int, float] = {}
        """Workers that are about to be killed for their request, and when that request began."""
        self._probes: dict[int, _HeartbeatProbe] = {}
        """Heartbeats that were requested and not answered yet, by worker."""
        self._unresponsive: frozenset[int] = frozenset()
        """Workers that have not sent the heartbeat since the previous sample."""
        self._sampled_at = float("-inf")
        self._limits_checked_at = float("-inf")
        self._refork_at = float("-inf")
        """No number of requests triggers a refork before this time."""
        self._measuring = False
        self._saturated_since: float | None = None

    def close(self) -> None:
        """Stop sampling."""
        self.sampler.close()

    def _on_sample(self, sample: PoolSample) -> float:
        now = self._loop.time()
        waiting = self._observe(sample, now)
        self._watch_refork_threshold(sample, now)
        self._watch_loops(sample, waiting, now)
        due = [self._watch_requests(sample, now), now + self._pace(waiting)]
        if now - self._limits_checked_at >= _LIMITS_PERIOD:
            self._limits_checked_at = now
            self._check_limits()
        self._changed()
        return max(_SHORTEST_PERIOD, min(due) - now)

    def _pace(self, waiting: int) -> float:
        timeouts = self._service.settings.timeouts
        board, limits = self._service.board, self._service.limits
        periods = [PERIOD, timeouts.request, timeouts.slow, timeouts.heartbeat]
        if limits.elastic and size_of(board, limits) < limits.maximum:
            periods.append(_BACKLOG_PERIOD if waiting else _ELASTIC_PERIOD)
        return min(period for period in periods if period > 0)

    # --- the pool as a whole ---------------------------------------------------------------------

    def _observe(self, sample: PoolSample, now: float) -> int:
        """Feed a sample to the policy; return how many connections wait."""
        held = sum(now - since >= _LONG_REQUEST for since in sample.busy.values())
        current = self._service.board.current
        waiting = self._pool.waiting(current.generation) if current else 0
        # A worker whose loop does not run is not idle, whatever its slot shows.
        busy = self._unresponsive.union(sample.busy)
        self._feed(ev.PoolObserved(busy, held, waiting if busy else 0))
        return waiting

    def _listeners(self) -> list[socket.socket]:
        current = self._service.board.current
        return self._pool.listeners(current.generation) if current else []

    def log_saturation(self) -> None:
        """Log that the pool is saturated, or no longer is; called after facts were applied."""
        now = self._loop.time()
        since = self._service.board.demand.waiting_since
        if since is None:
            if self._saturated_since is not None:
                seconds = now - self._saturated_since
                self._saturated_since = None
                text = f"no connection is waiting any more, after {seconds:.1f} s"
                eventlog.log_entry(catalog.SATURATED, logging.INFO, text)
        elif self._saturated_since is None and now - since >= _SATURATED:
            self._saturated_since = since
            waiting = self._service.board.demand.sample.waiting
            text = f"all workers have been busy for {now - since:.1f} s, and {waiting} connections are waiting"
            eventlog.log_entry(catalog.SATURATED, logging.WARNING, text)

    # --- loops -----------------------------------------------------------------------------------

    def _watch_loops(self, sample: PoolSample, waiting: int, now: float) -> None:
        """Request heartbeats from workers, and report those that send none.

        Every second while connections wait, else every ten seconds from those with open connections.
        """
        limit = self._service.settings.timeouts.heartbeat
        if now - self._sampled_at > _MASTER_DELAYED:
            self._probes.clear()
        self._sampled_at = now
        probes, self._probes = self._probes, {}
        excused = frozenset() if self._loop_runs_during_requests() else sample.busy.keys()
        every, asks = PERIOD if waiting else _LIMITS_PERIOD, False
        for row in self._heartbeat_workers() if limit else ():
            worker, beats = row.worker, sample.beats.get(row.worker, 0)
            if worker in excused:
                continue
            before = probes.get(worker)
            if before is None or (before.beats != beats and now - before.since >= every):
                if not waiting and not sample.connections.get(worker):
                    continue
                self._pool.request_heartbeat(worker)
                before, asks = _HeartbeatProbe(beats, now), True
            self._probes[worker] = before
            if before.beats == beats and now - before.since >= limit and not row.overdue:
                text = (
                    f"its event loop has not run for {now - before.since:.1f} s while clients wait"
                )
                self._feed(ev.WorkerOverdue(worker, text))
        unresponsive = {
            worker
            for worker, one in probes.items()
            if worker in self._probes and one.beats == sample.beats.get(worker, 0)
        }
        for worker in probes.keys() - unresponsive - self._overdue_workers.keys():
            known = self._service.board.workers.get(worker)
            if known is not None and known.overdue:
                self._feed(ev.WorkerRecovered(worker))
        self._unresponsive = frozenset(unresponsive)
        self.sampler.hold = bool(unresponsive) or asks

    def _loop_runs_during_requests(self) -> bool:
        settings = self._service.settings
        return settings.app.target.startswith("asgi:") or settings.workers.threads > 1

    def _heartbeat_workers(self) -> Iterator[WorkerRow]:
        for row in self._service.board.workers.values():
            if row.serving and row.state is WorkerState.READY and row.stopped_at is None:
                yield row

    # --- requests --------------------------------------------------------------------------------

    def _watch_requests(self, sample: PoolSample, now: float) -> float:
        """Act on requests that take long; return when the next running one is due."""
        timeouts = self._service.settings.timeouts
        due = [float("inf")]
        self._reports = {
            worker: report
            for worker, report in self._reports.items()
            if sample.busy.get(worker) == report.since
        }
        for worker, since in list(self._overdue_workers.items()):
            if sample.busy.get(worker) != since:
                # That request has ended; the next one must not be blamed for it.
                del self._overdue_workers[worker]
                self._feed(ev.WorkerRecovered(worker))
        for worker, since in sample.busy.items():
            row = self._service.board.workers.get(worker)
            if row is None or row.overdue:
                continue
            report = self._reports.setdefault(worker, _RequestReport(since))
            if timeouts.request:
                if now >= since + timeouts.request:
                    self._overdue_workers[worker] = since
                    self._overdue(row, timeouts.request)
                    continue
                due.append(since + timeouts.request)
            if timeouts.slow and not report.slow:
                if now >= since + timeouts.slow:
                    report.slow = True
                    self._slow(row, since)
                else:
                    due.append(since + timeouts.slow)
        if self._overdue_workers:
            due.append(now + _OVERDUE_PERIOD)
        return min(due)

    def _overdue(self, row: WorkerRow, limit: float) -> None:
        line = self._pool.busy_with(row.worker) or "a request"
        self._feed(ev.WorkerOverdue(row.worker, f"{line} took longer than {limit:g} s"))

    def _slow(self, row: WorkerRow, since: float) -> None:
        line = self._pool.busy_with(row.worker)

        def callback(stacks: str) -> None:
            seconds = self._loop.time() - since
            what = f"is slow: {line or 'a request'} has taken {seconds:.1f} s so far"
            eventlog.log_stacks(row, what, line, stacks, catalog.REQUEST_SLOW)

        self._pool.request_stacks(row.worker, self._service.limits.stacks_timeout, callback)

    # --- reforks ---------------------------------------------------------------------------------

    def warmest(self) -> int:
        """Return the worker that has answered most requests; 0 if there is none."""
        requests = self._pool.sample(self._loop.time()).requests
        return max(requests, key=requests.__getitem__, default=0)

    def _watch_refork_threshold(self, sample: PoolSample, now: float) -> None:
        after = self._service.settings.memory.refork.after
        once = after == "once"
        least = _REQUESTS_BEFORE_ONCE if after == "once" else after
        board = self._service.board
        current = board.current
        if not least or current is None or current.refork.reason or now < self._refork_at:
            return
        zygote = board.usable_zygote(current.generation)
        counts = {
            row.worker: sample.requests.get(row.worker, 0)
            for row in board.workers_of(current.generation)
            if zygote is not None and row.zygote == zygote.zygote
        }
        worker = max(counts, key=counts.__getitem__, default=0)
        if once and (current.refork.failures or zygote is None or zygote.parent is not None):
            return
        if counts.get(worker, 0) >= least:
            self._refork_at = now + _REFORK_PAUSE
            reason = f"worker {board.workers[worker].slot} has answered {counts[worker]} requests"
            self._feed(ev.ReforkRequested(worker, reason, guarded=once))

    # --- limits of workers ------------------------------------------------------------------------

    def _check_limits(self) -> None:
        settings = self._service.settings
        for row, pid in self._limited_workers():
            handle = self._pool.worker(row.worker)
            if handle is None:
                continue
            reading = handle.slot_memory.read(self._loop.time())
            share = spread(row.worker)
            reason = worker_limits.reason_to_replace(pid, settings, reading.connections, share)
            if reason:
                self._feed(ev.WorkerLimitReached(row.worker, reason))
        if settings.memory.limit and not self._measuring:
            self._measure_memory(settings.memory.limit)

    def _limited_workers(self) -> Iterator[tuple[WorkerRow, int]]:
        for row in self._service.board.workers.values():
            if row.state is WorkerState.READY and not row.limit_reached and row.pid is not None:
                yield row, row.pid

    def _measure_memory(self, limit: int) -> None:
        # In a thread, because reading the memory of many workers takes long.
        rows = list(self._limited_workers())

        def measured(readings: dict[int, Reading]) -> None:
            self._measuring = False
            self._retire_heavy(rows, readings, limit)

        self._measuring = True
        self._service.memory_sampler.read([pid for _, pid in rows], measured)

    def _retire_heavy(
        self, rows: list[tuple[WorkerRow, int]], readings: dict[int, Reading], limit: int
    ) -> None:
        memory_sampler = self._service.memory_sampler
        sizes: list[tuple[int, int | None, WorkerRow]] = []
        for row, pid in rows:
            usage = readings[pid]
            if isinstance(usage, Usage):
                sizes.append((usage.private, memory_sampler.growth(pid, usage), row))
        sizes.sort(key=lambda size: -size[0])
        for private, growth, row in sizes:
            if private > limit * spread(row.worker):
                worst = worker_limits.heaviest(
                    [(w[0], w[2].slot) for w in sizes[:_HEAVIEST_LISTED]]
                )
                reason = worker_limits.too_heavy(private, growth)
                self._feed(ev.WorkerLimitReached(row.worker, f"{reason} ({worst})"))
