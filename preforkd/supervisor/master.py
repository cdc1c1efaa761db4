"""The master: collects facts, has the policy decide, has the pool perform, announces the result.

Everything happens in one loop. Facts are queued, never handled where they arise, so that an action that fails
at once (a fork, for example) does not re-enter the code that performs it. See the package for the order.
"""

import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

import preforkd
from preforkd.background import run_in_thread
from preforkd.config import changes
from preforkd.config.configuration import DEFAULT_PATH, Configuration
from preforkd.config.settings import Settings
from preforkd.control.records import MemoryStatus, ReloadAnswer, ServiceStatus
from preforkd.core import events as ev, lifecycle, policy, status
from preforkd.core.lifecycle import Effect, Event, State
from preforkd.core.model import Limits
from preforkd.core.pool_view import size_of
from preforkd.core.scoreboard import Scoreboard
from preforkd.core.text import hide
from preforkd.errors import Blame, ConfigurationError, ExitStatus, Failure, PreforkdError, refused
from preforkd.ipc.handoff import pair
from preforkd.linux import clock, cpus, memory
from preforkd.linux.environment import working_directory
from preforkd.linux.sd_notify import Notifier
from preforkd.linux.title import Title
from preforkd.logs import catalog, logs
from preforkd.loop import Call, Loop
from preforkd.supervisor import eventlog, installed_code, limits, reloads, snapshot
from preforkd.supervisor.children import Launch, with_absolute_paths
from preforkd.supervisor.idle_exit import IdleExit
from preforkd.supervisor.listeners import Listeners, Proposal
from preforkd.supervisor.memory_sampler import MemorySampler
from preforkd.supervisor.monitor import Monitor
from preforkd.supervisor.notify import StatusNotifier, TimeoutExtender, Watchdog
from preforkd.supervisor.pool import Pool
from preforkd.supervisor.refork import ReforkWaiters

logger = logging.getLogger("preforkd.master")

MOST_WORKERS = 1024
"""The largest size that an administrator may set."""
_MARGIN = 10.0
"""Seconds by which timeouts of systemd exceed those of preforkd."""


class Candidate(msgspec.Struct, frozen=True):
    """What a generation was started with, until it is promoted or abandoned."""

    generation: int
    configuration: Configuration
    proposal: Proposal
    changes: changes.Changes


class Master:
    """See the module.

    ``read`` returns the configuration as it is now and raises ConfigurationError; ``environment`` is
    that of the application's processes.
    """

    def __init__(
        self,
        loop: Loop,
        read: Callable[[], Configuration],
        configuration: Configuration,
        listeners: Listeners,
        notifier: Notifier,
        *,
        environment: dict[str, str],
    ) -> None:
        self.loop = loop
        self.configuration = configuration
        self.board = Scoreboard()
        self.state = State.STARTING
        self.exit_status = ExitStatus.OK
        self.restarting = False
        """The manager starts the service again at once (RestartKillSignal=SIGUSR2)."""
        self.started_at = time.monotonic()
        self.listeners = listeners
        self.reloads = reloads.Reloads()
        self.by_hand: int | None = None
        """The size that an administrator has set in place of that of the settings."""
        self.limits = self._limits(configuration.settings)
        self.memory_sampler = MemorySampler(loop)
        self.pool = Pool(self.loop, self.feed, self._activity_resumed)
        self.pool.on_overdue_stacks = self._log_overdue_stacks
        self.pool.on_late_stacks = self._log_late_stacks
        self.on_commit: list[Callable[[Settings], None]] = []
        """Called with the settings whenever live ones may have changed."""
        self._read = read
        self._environment = environment
        self._home = working_directory(environment)
        self._candidate: Candidate | None = None
        self._abandoned: Failure | None = None
        self._outcome: ReloadAnswer | None = None
        self._generation = 0
        self._delay_logged = float("-inf")
        self._facts: deque[ev.Fact] = deque()
        self._turning: Call | None = None
        self._timer: Call | None = None
        self._drain_notice: Call | None = None
        """Set between the announcement of a stop and the start of draining."""
        self._exiting_idle = False
        self._title = Title()
        self._status_notifier = StatusNotifier(self.loop, notifier, self._status_line)
        self._monitor = Monitor(
            self.loop, self, self.pool, self.feed, self._status_notifier.refresh
        )
        self._notifier = notifier
        self._timeout_extender = TimeoutExtender(self.loop, notifier)
        self._refork_waiters = ReforkWaiters()
        self._idle_timer = IdleExit(self.loop, self, self._exit_idle)
        self._watchdog = Watchdog(
            self.loop, notifier, lambda: status.healthy(self.board, self.limits, self.loop.time())
        )

    def _limits(self, settings: Settings) -> Limits:
        # A size that was given by hand holds until the settings of workers change.
        by_hand = self.by_hand if settings.workers == self.configuration.settings.workers else None
        return limits.limits_of(settings, cpus.usable_cpus(), by_hand)

    def _limits_now(self) -> Limits:
        current = self._limits(self.settings)
        if self._candidate is None:
            return current
        wanted = self._limits(self._candidate.configuration.settings)
        return wanted if self.board.current is None else limits.while_reloading(current, wanted)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.configuration.settings

    # --- commands ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the first generation. Raises PreforkdError if its sockets cannot be opened."""
        proposal = self.listeners.propose(self.configuration.settings, self.configuration.origins)
        text = f"preforkd {preforkd.VERSION} starting: {self.configuration.path or 'built-in configuration'}"
        eventlog.log_entry(catalog.STARTED, logging.INFO, text)
        if "app.target" not in self.configuration.origins:
            _warn_demo(self.configuration.path)
        if not os.path.exists("/proc/self"):
            names = "limits.cpu, limits.descriptors and memory.limit"
            logger.warning("/proc is not mounted: %s have no effect", names)
        for served in proposal.served:
            eventlog.log_listener(served.name, served.address, served.origin)
        self._begin(Candidate(0, self.configuration, proposal, changes.Changes()))
        self._timeout_extender.begin(self.limits.start + _MARGIN)
        self._watchdog.start()

    def reload(self, callback: reloads.ReloadCallback, *, fresh: bool) -> None:
        """Reload, and call ``callback`` with the answer. ``fresh``: start new workers in any case."""
        self._request_reload(callback, fresh=fresh)

    def on_sighup(self) -> None:
        """Reload; there is no answer to a signal."""
        self._request_reload(None, fresh=False)

    def _request_reload(self, waiter: reloads.ReloadCallback | None, *, fresh: bool) -> None:
        self.reloads.request(waiter, fresh=fresh)
        if self.state is State.ENDED:
            self.reloads.refuse()
        else:
            self._transition(Event.RELOAD)

    def stop(self, *, quick: bool = False) -> None:
        """Stop: drain first; quickly at the second call, or if ``quick``."""
        if self.state is State.ENDED:
            return
        first = self.state is not State.STOPPING
        self._transition(Event.STOP)
        if quick and first:
            self._transition(Event.STOP)

    def scale(self, size: int | None) -> int:
        """Set the size of the pool, or (None) return to that of the settings; return the size.

        It holds until the settings of ``workers`` change, or the service ends.
        """
        before = size_of(self.board, self.limits)
        self.by_hand = None if size is None else min(max(1, size), MOST_WORKERS)
        self.limits = self._limits_now()
        after = size_of(self.board, self.limits)
        if after != before or size is not None:
            # An elastic pool continues from there when it decides about its size again.
            self._record(ev.Resize(after, before, "requested by an administrator"))
        self._turn_soon()
        return after

    def scale_by(self, step: int) -> int:
        """Change the size of the pool by ``step`` workers; return the size."""
        return self.scale(size_of(self.board, self.limits) + step)

    def refork(self, callback: Callable[[str | Failure], None]) -> None:
        """Fork a zygote from the warmest worker; call ``callback`` with a message, or the failure."""
        self._refork_waiters.add(callback)
        current, refusal = self.board.current, self.settings.refork_refusal
        if self.state is not State.SERVING or current is None:
            reason = f"the service is {self.state.value}; refork requires a serving service"
            self._refork_waiters.resolve(Failure(Blame.SYSTEM, reason))
        elif refusal:
            self._refork_waiters.resolve(Failure(Blame.CONFIGURATION, refusal))
        else:
            self.feed(ev.ReforkRequested(self._monitor.warmest(), "requested", urgent=True))

    def log_status(self) -> None:
        """Log the STATUS line and the state of each worker."""
        logger.info("%s", self._status_line())
        for row in self.board.workers.values():
            logger.info("%s: %s", eventlog.worker_name(row), row.state.value)

    def status(self) -> ServiceStatus:
        """Return the status of the service."""
        return snapshot.service_status(
            snapshot.SnapshotSource(
                version=preforkd.VERSION,
                pid=os.getpid(),
                state=self.state,
                status=self._status_line,
                uptime=time.monotonic() - self.started_at,
                configuration=self.configuration.path,
                last_reload=self.reloads.last,
                served=self.listeners.current.served,
                notes=list(self.listeners.current.notes),
                by_hand=self.by_hand is not None,
            ),
            self.board,
            self.limits,
            self.pool,
            self.loop.time(),
        )

    def memory(self, callback: Callable[[MemoryStatus], None]) -> None:
        """Read the memory of all processes in a thread; call ``callback`` with it."""
        snapshot.read_memory_status(self.board, self.memory_sampler, callback)

    def quiet_since(self) -> float | None:
        """Return since when no worker has been busy (loop time); None while one is."""
        return self._monitor.sampler.quiet_since() if self.state is State.SERVING else None

    def open_connections(self) -> int:
        """Return how many connections are open in all workers."""
        return self.pool.open_connections()

    def on_memory_pressure(self) -> None:
        """Release unused memory, here and in all workers, because the kernel reports pressure."""
        eventlog.log_entry(
            catalog.MEMORY_PRESSURE,
            logging.WARNING,
            "memory pressure: releasing unused memory in all processes",
        )
        memory.trim()
        self.pool.trim()
        self.feed(ev.MemoryShort())

    def _exit_idle(self) -> None:
        text = f"idle for {self.configuration.settings.idle_exit:g} s: exiting until the next connection"
        eventlog.log_entry(catalog.IDLE_EXIT, logging.INFO, text)
        self._exiting_idle = True
        self.stop()

    def close(self) -> None:
        """Cancel all timers and close the listeners."""
        self.pool.close()
        self._idle_timer.close()
        self._watchdog.close()
        self._monitor.close()
        self._status_notifier.close()
        self._timeout_extender.end()
        self._end_drain_notice()
        # systemctl status shows this line until the next start.
        self._notifier.status(self._status_notifier.line())
        if self._timer is not None:
            self._timer.cancel()
        if self._candidate is not None:
            self.listeners.roll_back(self._candidate.proposal)
        self.listeners.close(restarting=self.restarting)
        self._notifier.barrier()

    # --- facts, policy, announcements --------------------------------------------------------------

    def feed(self, fact: ev.Fact) -> None:
        """Queue a fact for the next turn."""
        self._facts.append(fact)
        self._turn_soon()

    def _turn_soon(self) -> None:
        if self._turning is None:
            self._turning = self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = None
        while self._facts:
            self._record(self._facts.popleft())
        plan = policy.decide(self.board, self.limits, self.loop.time())
        # A worker that is retired by a reload may keep idle connections for a while.
        stopping = self.board.stopping is not None
        self.pool.linger = 0.0 if stopping else limits.linger_of(self.configuration.settings)
        self.pool.drain = self.limits.drain
        for action in plan.actions:
            self._record(action)
            self.pool.perform(action)
        self._sleep_until(plan.wake_at)
        # Announcements come last, when they are true: READY after the workers were ordered to serve.
        for action in plan.actions:
            self._announce(action)
        self._log_start_delay()
        self._forget_launches()
        self._monitor.log_saturation()
        self._show_status()

    def _log_start_delay(self) -> None:
        row = self.board.current or self.board.candidate
        if row is None or self.board.stopping or row.failure_streak.retry_at <= self._delay_logged:
            return
        self._delay_logged = row.failure_streak.retry_at
        failures = row.failure_streak.failed_starts + row.failure_streak.short_lives
        if failures and (wait := row.failure_streak.retry_at - self.loop.time()) > 0:
            text = f"{row.failure_streak.describe()}; retrying in {wait:.2g} s"
            number = row.generation
            eventlog.log_entry(
                catalog.CRASH_LOOP, logging.WARNING, text, PREFORKD_GENERATION=number
            )

    def _record(self, event: ev.Fact | ev.Action) -> None:
        try:
            eventlog.log_event(event, self.board)
        except Exception:
            # An event that cannot be logged has happened nevertheless.
            logger.exception("internal error: %r could not be logged", event)
        self.board.apply(event, self.loop.time())
        if isinstance(event, ev.WorkerReady):
            row = self.board.workers.get(event.worker)
            if row is not None and row.pid is not None:
                self.memory_sampler.watch(row.pid)

    def _announce(self, action: ev.Action) -> None:
        match action:
            case ev.Promote(generation=generation):
                eventlog.log_promotion(generation, self.board)
                self._refork_waiters.resolve(Failure(Blame.SYSTEM, "superseded by a reload"))
                self._transition(Event.PROMOTED)
            case ev.Abandon(failure=failure):
                self._abandoned = _with_code_change_hint(failure)
                self._transition(Event.ABANDONED)
            case ev.AdoptZygote(zygote=zygote):
                row = self.board.zygotes.get(zygote)
                pid = row.pid if row is not None else None
                self._refork_waiters.resolve(
                    f"zygote {pid} was forked from a worker; replacing the other workers"
                )
            case ev.GiveUpRefork(failure=failure):
                self._refork_waiters.resolve(failure)
            case ev.Finish():
                self._transition(Event.EMPTY)
            case _:
                pass

    def _sleep_until(self, wake_at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # A problem is shown in STATUS at its time, even if nothing else happens then.
        due = status.next_problem_at(self.board, self.limits, self.loop.time())
        due = min(due, math.inf if wake_at is None else wake_at)
        if due < math.inf and not self._facts:
            self._timer = self.loop.call_at(due, self._turn_soon)

    def _forget_launches(self) -> None:
        # A candidate is in the scoreboard only after the next turn.
        wanted = {self._candidate.generation} if self._candidate is not None else set()
        current = self.board.current
        for generation in self.pool.launches.keys() - self.board.generations.keys() - wanted:
            self.pool.forget_launch(generation, current.generation if current else None)

    # --- log and status ----------------------------------------------------------------------------

    def _activity_resumed(self) -> None:
        self._monitor.sampler.wake()

    def _log_overdue_stacks(self, worker: int, stacks: str) -> None:
        row = self.board.workers.get(worker)
        if row is not None and row.overdue:
            line = self.pool.busy_with(worker)
            what = f"will be killed: {row.overdue}"
            eventlog.log_stacks(row, what, line, stacks, catalog.REQUEST_OVERDUE)

    def _log_late_stacks(
        self, end: ev.KillWorker | ev.KillZygote | ev.GiveUpRefork, stacks: str
    ) -> None:
        if not isinstance(end, ev.KillWorker):
            if zygote := self.board.zygotes.get(end.zygote):
                eventlog.log_late_zygote(zygote, stacks)
        elif worker := self.board.workers.get(end.worker):
            eventlog.log_late_worker(worker, self.pool.busy_with(end.worker), stacks)

    def _show_status(self) -> None:
        self._status_notifier.refresh()
        row = self.board.current
        generation = f", generation {row.generation}" if row else ""
        self._title.set(f"preforkd: master, {self.state.value}{generation}")

    def _status_line(self, busy: int | None = None) -> str:
        if busy is None:
            busy = len(self.pool.sample(self.loop.time()).busy)
        if self.exit_status and self._abandoned is not None:
            return f"cannot start: {self._abandoned.reason}"
        if self.state is State.ENDED:
            return (
                "idle; the next connection starts the service again"
                if self._exiting_idle
                else "stopped"
            )
        parts = [status.summary(self.board, self.limits, self.state, busy)]
        now = self.loop.time()
        parts += status.problems(self.board, self.limits, now, clock.time_of_day_at)
        last = self.reloads.last
        if last is not None and not last.ok:
            when = clock.time_of_day(last.at_unix)
            why = f"the last reload failed at {when}, and nothing was changed: {last.message}"
            parts.append(f"{why}; fix that, then reload again")
        return "; ".join([*parts, *self.listeners.current.notes])

    # --- lifecycle ---------------------------------------------------------------------------------

    def _transition(self, event: Event) -> None:
        self.state, effects = lifecycle.step(self.state, event)
        for effect in effects:
            try:
                _EFFECTS[effect](self)
            except Exception as error:
                # The remaining effects are carried out nevertheless: clients wait for the answer.
                logger.exception("internal error: %s failed", effect.value)
                self._outcome = reloads.refusal(_internal(error))
        self._turn_soon()

    def _announce_ready(self) -> None:
        self._timeout_extender.end()
        self._notifier.ready(self._status_notifier.line())

    def _announce_reloading(self) -> None:
        # Only for a signal. ExecReload= gets its answer by the control socket; notified of the reload,
        # systemd 257 waits for its end after ExecReload=, even if the master has died by then.
        if self.reloads.by_signal:
            self._notifier.reloading(self._status_notifier.line())
        self._timeout_extender.begin(self.limits.start + _MARGIN)

    def _announce_stopping(self) -> None:
        self._notifier.stopping(self._status_notifier.line())
        longest = self.limits.drain + self.limits.dismiss
        longest += self.configuration.settings.timeouts.drain_notice
        self._timeout_extender.begin(longest + _MARGIN)

    def _prepare_reload(self) -> None:
        fresh = self.reloads.begin()
        # Another process reads it; a thread awaits that, so that the loop goes on.
        run_in_thread(
            self.loop,
            "reader",
            self._read,
            lambda read: self._configuration_read(read, fresh=fresh),
        )

    def _configuration_read(self, read: Callable[[], Configuration], *, fresh: bool) -> None:
        if self.state is not State.RELOADING:
            return  # the service was stopped meanwhile
        secrets: tuple[str, ...] = ()
        try:
            configuration = read()
            secrets = configuration.secret_texts
            self._apply_configuration(configuration, fresh=fresh)
        except PreforkdError as error:
            hide(error, secrets)
            self._refuse_reload(error.failure())
        except Exception as error:
            # The reload must end in any case: clients wait for the answer.
            logger.exception("internal error: a reload failed")
            if self.state is State.RELOADING:
                self._refuse_reload(_internal(error))

    def _apply_configuration(self, configuration: Configuration, *, fresh: bool) -> None:
        self._require_nothing_removed(configuration)
        old = self.configuration.settings
        differences = changes.changes(old, configuration.settings)
        kept = replace(
            configuration, settings=changes.keep_restart_settings(old, configuration.settings)
        )
        for setting in differences.restart:
            logger.warning("%s has changed; only a restart of the service applies it", setting)
        if differences.live and not differences.generation and not fresh:
            self._change_live(kept, differences)
            return
        proposal = self.listeners.propose(kept.settings, kept.origins)
        try:
            self._begin(Candidate(0, kept, proposal, differences))
        except Exception:
            self._candidate = None
            self.limits = self._limits_now()
            self.listeners.roll_back(proposal)
            raise

    def _require_nothing_removed(self, configuration: Configuration) -> None:
        depends = self.listeners.current.entries > 0
        if problems := changes.lost_settings(self.configuration, configuration, listen=depends):
            raise ConfigurationError(problems)

    def _change_live(self, configuration: Configuration, differences: changes.Changes) -> None:
        self._adopt(configuration)
        names = ", ".join(differences.live)
        current = self.board.current
        self._outcome = reloads.success(
            current.generation if current else None,
            f"changed without new workers: {names}",
            differences.live,
            differences.restart,
        )
        text = f"reload: {self._outcome.message}"
        eventlog.log_entry(catalog.RELOADED_LIVE, logging.INFO, text)
        # Retire surplus workers before the change is announced.
        self._turn()
        self._transition(Event.SETTLED)

    def _refuse_reload(self, failure: Failure) -> None:
        self._log_reload_failure(_with_code_change_hint(failure))
        self._transition(Event.SETTLED)

    def _log_reload_failure(self, failure: Failure) -> None:
        current, entry = self.board.current, catalog.RELOAD_REFUSED
        serving = f"; generation {current.generation} keeps serving" if current else ""
        what = f"reload failed{serving}"
        eventlog.log_failure(what, failure, logging.ERROR, entry)
        self._outcome = reloads.refusal(failure)

    def _begin(self, candidate: Candidate) -> None:
        self._generation += 1
        number = self._generation
        self._candidate = replace(candidate, generation=number)
        settings = candidate.configuration.settings
        environment = {**self._environment, **settings.app.environment}
        settings = with_absolute_paths(settings, self._home)
        handoff = _handoff_sockets(settings)
        self.pool.launches[number] = Launch(
            number,
            settings,
            candidate.proposal.pairs(),
            environment,
            handoff,
            candidate.configuration.origins,
            candidate.configuration.secret_texts,
        )
        self.limits = self._limits_now()
        self.feed(ev.GenerationRequested(number))

    def _commit(self) -> None:
        candidate, self._candidate = self._candidate, None
        assert candidate is not None
        if candidate.generation > 1:
            known = {served.sock for served in self.listeners.current.served}
            for served in candidate.proposal.served:
                if served.sock not in known:
                    eventlog.log_listener(served.name, served.address, served.origin)
            number = candidate.generation
            text = f"reload completed: generation {number} is serving"
            eventlog.log_entry(catalog.RELOADED, logging.INFO, text, PREFORKD_GENERATION=number)
        self._monitor.sampler.unwatch()
        self.listeners.commit(candidate.proposal)
        self._adopt(candidate.configuration)
        directory = self.pool.directories.get(candidate.generation)
        loaded_from = f", loaded from {directory}" if directory else ""
        if candidate.configuration.settings.app.directory in {"", "."}:
            loaded_from += ", where preforkd was started"
        self._outcome = reloads.success(
            candidate.generation,
            f"generation {candidate.generation} is serving{loaded_from}",
            candidate.changes.live,
            candidate.changes.restart,
        )
        self._monitor.sampler.wake()

    def _adopt(self, configuration: Configuration) -> None:
        settings = configuration.settings
        if settings.workers != self.configuration.settings.workers:
            self.by_hand = None
        self.configuration = configuration
        self.pool.limit_requests(settings.limits.requests)
        self.limits = self._limits(settings)
        logs.configure(settings.log.level, settings.log.target)
        self._idle_timer.set_period(settings.idle_exit if self.listeners.from_systemd else 0.0)
        current = self.board.current
        if current is not None and (launch := self.pool.launches.get(current.generation)):
            # Should its zygote have to be started again, it starts with what is true now.
            known = replace(
                launch,
                settings=with_absolute_paths(settings, self._home),
                origins=configuration.origins,
                secret_texts=configuration.secret_texts,
                proven=True,
            )
            self.pool.launches[current.generation] = known
        for each in self.on_commit:
            each(settings)

    def _roll_back(self) -> None:
        candidate, self._candidate = self._candidate, None
        self.limits = self._limits_now()
        if candidate is not None:
            self.listeners.roll_back(candidate.proposal)
        if self._abandoned is not None:
            failure, self._abandoned = self._abandoned, None
            self._log_reload_failure(failure)

    def _answer(self) -> None:
        assert self._outcome is not None
        self.reloads.answer(self._outcome)
        self._outcome = None
        self._status_notifier.refresh()

    def _queue_reload(self) -> None:
        logger.info("reload queued until the current operation ends")

    def _next_reload(self) -> None:
        if self.reloads.pending:
            self.loop.call_soon(self._reload_again)

    def _reload_again(self) -> None:
        if self.state is State.SERVING and self.reloads.pending:
            self._transition(Event.RELOAD)

    def _refuse_reloads(self) -> None:
        self.reloads.refuse()
        self._refork_waiters.resolve(Failure(Blame.SYSTEM, "the service is stopping"))

    def _fail(self) -> None:
        assert self._abandoned is not None
        what, entry = "the service cannot start", catalog.START_FAILED
        eventlog.log_failure(what, self._abandoned, logging.CRITICAL, entry)
        self.exit_status = self._abandoned.blame.exit_status

    def _drain(self) -> None:
        notice = self.configuration.settings.timeouts.drain_notice
        if not notice or self.restarting or self._exiting_idle or self.board.current is None:
            self._drain_now()
            return
        text = f"stopping in {notice:g} s; still serving, http.ready answers 503"
        eventlog.log_entry(catalog.STOPPING, logging.INFO, text)
        self.pool.send_drain_notice()
        self._drain_notice = self.loop.call_later(notice, self._drain_now)

    def _drain_now(self) -> None:
        self._end_drain_notice()
        text = f"stopping: draining {len(self.board.workers)} workers"
        eventlog.log_entry(catalog.STOPPING, logging.INFO, text)
        self.feed(ev.StopRequested(quick=False))

    def _end_drain_notice(self) -> None:
        if self._drain_notice is not None:
            self._drain_notice.cancel()
            self._drain_notice = None

    def _stop_quickly(self) -> None:
        self._end_drain_notice()
        self.feed(ev.StopRequested(quick=True))

    def _exit(self) -> None:
        self.loop.stop()


def _warn_demo(path: str | None) -> None:
    where = f"in {path}" if path else f"and {DEFAULT_PATH} does not exist"
    logger.warning("app.target is not set %s; serving the built-in demo application", where)


def _handoff_sockets(settings: Settings) -> tuple[socket.socket, socket.socket] | None:
    if not settings.app.target.startswith("wsgi:"):
        return None
    try:
        return pair()
    except OSError as error:
        raise refused("cannot create the sockets for the handoff between workers", error) from error


def _internal(error: Exception) -> Failure:
    return Failure(
        Blame.INTERNAL,
        f"internal error: {type(error).__name__}: {error}",
        hint="the traceback is in the log; please report it",
    )


def _with_code_change_hint(failure: Failure) -> Failure:
    # New code that does not fit this process may fail in any way.
    if installed_code.HINT in failure.hint or not installed_code.changed():
        return failure
    return replace(failure, hint=f"{failure.hint}; {installed_code.HINT}".removeprefix("; "))


_EFFECTS: dict[Effect, Callable[[Master], None]] = {
    Effect.ANNOUNCE_READY: Master._announce_ready,
    Effect.ANNOUNCE_RELOADING: Master._announce_reloading,
    Effect.ANNOUNCE_STOPPING: Master._announce_stopping,
    Effect.PREPARE_RELOAD: Master._prepare_reload,
    Effect.REMEMBER_RELOAD: Master._queue_reload,
    Effect.COMMIT: Master._commit,
    Effect.ROLL_BACK: Master._roll_back,
    Effect.ANSWER: Master._answer,
    Effect.NEXT_RELOAD: Master._next_reload,
    Effect.REFUSE_RELOADS: Master._refuse_reloads,
    Effect.FAIL: Master._fail,
    Effect.DRAIN: Master._drain,
    Effect.HURRY: Master._stop_quickly,
    Effect.EXIT: Master._exit,
}
