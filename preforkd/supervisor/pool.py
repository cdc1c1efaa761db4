"""The pool: performs the actions of the policy, and reads the messages of the children.

It decides nothing (`preforkd.core.policy` does), and it does not trust the children: a message of a child has
consequences for that child only, and a pid that it contains is used only if the kernel confirms that it is a
child of the master.
"""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from preforkd.background import run_in_thread
from preforkd.core import events as ev
from preforkd.core.recycling import spread
from preforkd.core.text import LINE_LIMIT, presentable, printable
from preforkd.errors import Blame, Failure, shortage
from preforkd.ipc import messages
from preforkd.ipc.channel import (
    ChannelClosedError,
    MalformedMessageError,
    UnwantedDescriptorsError,
    close_all,
)
from preforkd.linux import cgroup, process, stacks
from preforkd.loop import Loop
from preforkd.supervisor import children, installed_code, interpreter
from preforkd.supervisor.child_output import Outputs, discard
from preforkd.supervisor.children import Launch, WorkerHandle, ZygoteHandle
from preforkd.supervisor.refork import PendingReforks
from preforkd.supervisor.sampler import PoolSample

logger = logging.getLogger("preforkd.master")

_REJECTIONS_LOGGED = 10
"""Number of rejected messages that are logged per child."""
_MESSAGES_A_TURN = 16
"""Messages that are read from one child per turn, so that the others are not delayed."""

_STACKS_DELAY = 0.2
"""Seconds that a worker has to write its stacks before they are read; less than `Limits.stacks_timeout`."""

_LATE_STACKS_TIMEOUT = 2.0
"""Seconds that a process which exceeded a timeout has to write its stacks before it is killed."""
_LATE_STACKS_POLL = 0.1
"""Seconds between two checks whether its stacks are complete."""

AnyHandle = TypeVar("AnyHandle", WorkerHandle, ZygoteHandle)
_EndZygote = ev.KillZygote | ev.GiveUpRefork


class Pool:
    """The processes; facts about them go to ``report``, ActivityResumed to ``on_activity``."""

    def __init__(
        self,
        loop: Loop,
        report: Callable[[ev.Fact], None],
        on_activity: Callable[[], None],
    ) -> None:
        self.launches: dict[int, Launch] = {}
        self.directories: dict[int, str] = {}
        """The directory from which each generation has loaded its application, as its zygote reports."""
        self.linger = 0.0
        """Seconds that a retiring worker's idle connections may stay open."""
        self.drain: float | None = None
        """Seconds that a retiring worker has, as it is sent in `messages.Retire`."""
        self._requests = 0
        self.on_overdue_stacks: Callable[[int, str], None] = lambda _worker, _stacks: None
        """Called with the stacks of a worker that is about to be killed for its request."""
        self.on_late_stacks: Callable[[ev.KillWorker | _EndZygote, str], None] = (
            lambda _end, _stacks: None
        )
        """Called with the stacks of a process that is killed after a timeout."""
        self._drain_noticed = False
        self._loop = loop
        self._report = report
        self._on_activity = on_activity
        self._zygotes: dict[int, ZygoteHandle] = {}
        self._workers: dict[int, WorkerHandle] = {}
        self._pending_reforks = PendingReforks(report)
        self._orphans_wait = False
        self._oom_kills = cgroup.OomKills()
        self._outputs = Outputs(loop)

    def close(self) -> None:
        """Forward the remaining output of the children, and close what they were started with."""
        self._outputs.close()
        for launch in self.launches.values():
            launch.close()

    def perform(self, action: ev.Action) -> None:
        """Perform one action and report its results as facts. Does not raise.

        The action is in the scoreboard already. If performing it raises, which is a bug, it is reported as
        failed, so that the policy does not wait for its result.
        """
        if (method := _PERFORM.get(type(action))) is None:
            return
        try:
            method(self, action)
        except Exception as error:
            logger.exception("internal error: %r failed", action)
            self._fail(action, f"internal error: {type(error).__name__}: {error}")

    def _fail(self, action: ev.Action, reason: str) -> None:
        match action:
            case ev.SpawnZygote(zygote=zygote) | ev.ForkZygote(zygote=zygote):
                self._report(ev.ZygoteFailed(zygote, Failure(Blame.INTERNAL, reason)))
                self._end_zygote(zygote)
            case ev.ForkWorker(worker=worker):
                handle = self._workers.get(worker)
                if handle is None:
                    self._report(ev.WorkerExited(worker, reason))
                else:
                    self._forget_worker(handle, reason)
            case ev.ServeWorker(worker=worker) | ev.KillWorker(worker=worker):
                # A worker that was not ordered to serve is of no use; it is replaced.
                self._end_worker(worker)
            case ev.KillZygote(zygote=zygote) | ev.GiveUpRefork(zygote=zygote):
                self._end_zygote(zygote)
            case _:
                pass  # its deadline expires

    def workers(self) -> Iterator[WorkerHandle]:
        """Yield the handles of all workers."""
        return iter(self._workers.values())

    def worker(self, worker: int) -> WorkerHandle | None:
        """Return a worker's handle."""
        return self._workers.get(worker)

    def sample(self, now: float) -> PoolSample:
        """Return a sample of all slots."""
        busy: dict[int, float] = {}
        requests: dict[int, int] = {}
        beats: dict[int, int] = {}
        connections: dict[int, int] = {}
        for handle in self._workers.values():
            since, count = handle.slot_memory.activity(now)
            requests[handle.worker] = count
            beats[handle.worker], connections[handle.worker] = handle.slot_memory.liveness()
            if since is not None:
                busy[handle.worker] = since
        return PoolSample(busy, requests, beats, connections)

    def busy_with(self, worker: int) -> str:
        """Return the request line in a worker's slot; empty if it is idle or has written none."""
        handle = self._workers.get(worker)
        return (
            handle.slot_memory.request_line()
            if handle and handle.slot_memory.busy_since_ns()
            else ""
        )

    def waiting(self, generation: int) -> int:
        """Return how many connections wait for a worker of this generation."""
        launch = self.launches.get(generation)
        return launch.waiting() if launch is not None else 0

    def listeners(self, generation: int) -> list[socket.socket]:
        """Return the listening sockets of this generation."""
        launch = self.launches.get(generation)
        return [sock for _, sock in launch.listeners] if launch is not None else []

    def request_heartbeat(self, worker: int) -> None:
        """Request a heartbeat from a worker."""
        if handle := self._workers.get(worker):
            self._send(handle, messages.Heartbeat())

    def forget_launch(self, generation: int, successor: int | None) -> None:
        """Close what a generation was started with; it has no processes any more.

        Connections that wait in its handoff are moved to the generation ``successor``.
        """
        launch = self.launches.pop(generation)
        self.directories.pop(generation, None)
        receiver = self.launches.get(successor) if successor is not None else None

        def release() -> tuple[int, int]:
            try:
                return launch.hand_over(receiver)
            finally:
                launch.close()

        def done(outcome: Callable[[], tuple[int, int]]) -> None:
            moved, lost = outcome()
            if moved:
                logger.info(
                    "generation %s takes over %d waiting requests of generation %d",
                    successor,
                    moved,
                    generation,
                )
            if lost:
                text = "generation %d: %d waiting requests were lost with its workers"
                logger.warning(text, generation, lost)

        if launch.handoff is not None:
            # Closing descriptors that workers left in the handoff may block: `preforkd.ipc.scm_rights`.
            run_in_thread(self._loop, "handoff", release, done)

    def open_connections(self) -> int:
        """Return how many connections are open in all workers."""
        now = self._loop.time()
        return sum(handle.slot_memory.read(now).connections for handle in self._workers.values())

    def request_wakeups(self) -> None:
        """Have each worker send ActivityResumed when it next becomes busy."""
        for handle in self._workers.values():
            handle.slot_memory.request_wakeup()

    # --- zygotes ---------------------------------------------------------------------------------

    def _spawn_zygote(self, action: ev.SpawnZygote) -> None:
        launch = self.launches[action.generation]
        output = self._outputs.open(PREFORKD_GENERATION=action.generation)
        try:
            handle = children.new_zygote(action.zygote, launch, output)
        except OSError as error:
            discard(output)
            self._report(
                ev.ZygoteFailed(action.zygote, interpreter.not_executable(launch.settings, error))
            )
            return
        self._zygotes[action.zygote] = handle
        settings = launch.settings
        if output is not None:
            output.close_child_ends()
            output.set_pid(handle.pid)
            # The master reads its standard error now; it is not the journal's any more.
            settings = replace(settings, log=replace(settings.log, target="journal"))
        # It got them at execve(2), and they may be larger than a message.
        settings = replace(settings, app=replace(settings.app, environment={}))
        self._loop.add_reader(handle.channel.fileno(), self._read_zygote, handle)
        self._loop.add_reader(handle.pidfd, self._zygote_ended, handle)
        self._report(ev.ZygoteSpawned(action.zygote, handle.pid))
        order = messages.Load(
            action.generation,
            msgspec.msgpack.encode(settings),
            tuple(name for name, _ in launch.listeners),
            handoff=launch.handoff is not None,
            check=not launch.proven,
        )
        socks = [*(sock for _, sock in launch.listeners), *(launch.handoff or ())]
        descriptors = [sock.fileno() for sock in socks]
        try:
            handle.channel.send(order, descriptors)
        except ChannelClosedError:
            pass  # its exit will be reported
        except OSError as error:
            reason = f"cannot send the settings to the zygote: {error.strerror}"
            self._report(ev.ZygoteFailed(action.zygote, Failure(Blame.SYSTEM, reason)))
            process.send_signal(handle.pidfd, signal.SIGKILL)

    def _read_zygote(self, handle: ZygoteHandle) -> None:
        if handle.channel.fileno() < 0:
            return
        for _ in range(_MESSAGES_A_TURN):
            try:
                received = handle.channel.receive(wait=False)
            except MalformedMessageError as error:
                _log_rejection(handle, f"message ignored: {error}")
            except ChannelClosedError as error:
                self._loop.remove_reader(handle.channel.fileno())
                _end_if_it_sent_descriptors(handle, error)
                return
            else:
                if received is None:
                    return
                close_all(received.descriptors)
                if received.pid == handle.pid:
                    self._on_zygote_message(handle, received.message)
            if self._throttle(handle, self._read_zygote):
                return

    def _on_zygote_message(self, handle: ZygoteHandle, message: messages.FromZygote) -> None:
        match message:
            case messages.Loaded(directory=directory):
                handle.reported = True
                directory = printable(directory[:LINE_LIMIT])
                self.directories[handle.generation] = directory
                launch = self.launches.get(handle.generation)
                preload = launch is None or launch.settings.app.preload
                self._report(ev.ZygoteLoaded(handle.zygote, directory, preload))
            case messages.LoadFailed(failure=failure):
                handle.reported = True
                self._report(ev.ZygoteFailed(handle.zygote, self._presentable(handle, failure)))
            case messages.Forked(worker=worker, pid=pid):
                self._adopt(handle.zygote, worker, pid)
            case messages.ForkFailed(worker=worker, reason=reason):
                if (row := self._workers.get(worker)) and row.zygote == handle.zygote:
                    self._forget_worker(row, printable(reason[:LINE_LIMIT]))

    def _presentable(self, handle: ZygoteHandle | WorkerHandle, failure: Failure) -> Failure:
        launch = self.launches.get(handle.generation)
        if launch is None:
            return presentable(failure)
        return presentable(failure, launch.secret_texts, launch.origins.get(failure.setting))

    def _zygote_ended(self, handle: ZygoteHandle) -> None:
        report = process.reap(handle.pidfd)
        if report is None:
            return
        self._read_zygote(handle)
        if handle.output is not None:
            handle.output.drain()
        self._loop.remove_reader(handle.pidfd)
        self._loop.remove_reader(handle.channel.fileno())
        handle.channel.close()
        handle.slot_memory.close()
        os.close(handle.pidfd)
        del self._zygotes[handle.zygote]
        launch = self.launches.get(handle.generation)
        if launch and (unusable := interpreter.failure_of(launch.settings, report.code)):
            self._report(ev.ZygoteFailed(handle.zygote, unusable))
        elif report.code and not handle.reported and installed_code.changed():
            reason = f"the zygote exited before it loaded the application: {report.describe()}"
            failure = Failure(Blame.SYSTEM, reason, hint=installed_code.HINT)
            self._report(ev.ZygoteFailed(handle.zygote, failure))
        self._report(ev.ZygoteExited(handle.zygote, report.describe()))

    def _fork_zygote(self, action: ev.ForkZygote) -> None:
        self._pending_reforks.request(action, self._workers.get(action.worker))

    def _zygote_forked(self, worker: WorkerHandle, message: messages.Reforked) -> None:
        handle = self._pending_reforks.forked(worker, message, self._claim_if_possible)
        if handle is None:
            return
        self._zygotes[handle.zygote] = handle
        self._loop.add_reader(handle.channel.fileno(), self._read_zygote, handle)
        self._loop.add_reader(handle.pidfd, self._zygote_ended, handle)
        self._report(ev.ZygoteSpawned(handle.zygote, handle.pid))

    def _dismiss_zygote(self, action: ev.DismissZygote) -> None:
        if handle := self._zygotes.get(action.zygote):
            with contextlib.suppress(ChannelClosedError, BlockingIOError):
                handle.channel.send(messages.Dismiss(action.followed))

    def _kill_zygote(self, action: _EndZygote) -> None:
        handle = self._zygotes.get(action.zygote)
        if handle is not None and action.stacks:
            self._kill_late(handle, action)
        else:
            self._end_zygote(action.zygote)

    def _end_zygote(self, zygote: int) -> None:
        if handle := self._zygotes.get(zygote):
            process.send_signal(handle.pidfd, signal.SIGKILL)
        else:
            self._pending_reforks.drop(zygote)

    # --- workers ---------------------------------------------------------------------------------

    def _fork_worker(self, action: ev.ForkWorker) -> None:
        zygote = self._zygotes.get(action.zygote)
        if zygote is None:
            self._report(ev.WorkerExited(action.worker, "its zygote had exited"))
            return
        slot, generation = action.slot, action.generation
        output = self._outputs.open(PREFORKD_WORKER=slot, PREFORKD_GENERATION=generation)
        try:
            handle = children.new_worker(action.worker, slot, generation, zygote, output)
        except (OSError, ChannelClosedError) as error:
            discard(output)
            reason = f"cannot send the fork request to the zygote: {_error_text(error)}"
            self._report_shortage(action.worker, reason, error)
            self._report(ev.WorkerExited(action.worker, reason))
            return
        if output is not None:
            output.close_child_ends()
        self._workers[action.worker] = handle
        self._loop.add_reader(handle.channel.fileno(), self._read_worker, handle)

    def _adopt(self, zygote: int | None, worker: int, pid: int) -> None:
        # A child reported the pid. It is used only if it is that of a child of the master which has no
        # handle yet.
        handle = self._workers.get(worker)
        if handle is not None and handle.pid == pid:
            return
        try:
            pidfd = self._claim(pid)
        except OSError as error:
            # Without a pidfd the worker is given up: it exits when its channel closes, an orphan then.
            if handle is not None:
                reason = f"the master cannot open a descriptor of the process: {error.strerror}"
                self._report_shortage(worker, reason, error)
                self._forget_worker(handle, reason)
            return
        if pidfd is None:
            if source := self._zygotes.get(zygote) if zygote is not None else handle:
                _log_rejection(
                    source,
                    f"pid {pid}, reported for worker {worker}, is not a new child of the master; ignored",
                )
            return
        if handle is None:  # given up while it was being forked
            children.kill(pidfd)
            return
        if handle.pid is not None or (zygote is not None and handle.zygote != zygote):
            os.close(pidfd)
            return
        handle.pid, handle.pidfd = pid, pidfd
        if handle.output is not None:
            handle.output.set_pid(pid)
        self._loop.add_reader(pidfd, self._worker_ended, handle)
        self._report(ev.WorkerForked(worker, pid))
        self._fork_settled()

    def _report_shortage(self, worker: int, reason: str, error: Exception) -> None:
        # Reported before the exit of the worker, which would be blamed on the application.
        if hint := shortage(error):
            self._report(ev.WorkerFailed(worker, Failure(Blame.SYSTEM, reason, hint=hint)))

    def _claim(self, pid: int) -> int | None:
        # Return a pidfd for a pid that a child reported, if it is that of a child without a handle. Raises
        # OSError if no descriptor is available.
        known = {row.pid for row in self._workers.values()}
        known.update(row.pid for row in self._zygotes.values())
        if pid in known or pid <= 0:
            return None
        try:
            return process.open_child(pid)
        except OSError as error:
            if error.errno in interpreter.SHORTAGES:
                raise
            return None

    def _claim_if_possible(self, pid: int) -> int | None:
        try:
            return self._claim(pid)
        except OSError:
            return None

    def _fork_settled(self) -> None:
        if self._orphans_wait:
            self._loop.call_soon(self.reap_orphans)

    def _read_worker(self, handle: WorkerHandle) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                received = handle.channel.receive(wait=False)
            except MalformedMessageError as error:
                _log_rejection(handle, f"message ignored: {error}")
            except ChannelClosedError as error:
                _end_if_it_sent_descriptors(handle, error)
                self._worker_disconnected(handle)
                return
            else:
                if received is None:
                    return
                close_all(received.descriptors)
                if handle.pid is None:
                    # Its message came before that of the zygote, which is on another channel.
                    self._adopt(None, handle.worker, received.pid)
                    if handle.worker not in self._workers:
                        return
                if received.pid == handle.pid:
                    self._on_worker_message(handle, received.message)
            if self._throttle(handle, self._read_worker):
                return

    def _throttle(self, handle: AnyHandle, read: Callable[[AnyHandle], None]) -> bool:
        # Reading messages delays the other children, so each child has a rate limit.
        rest = handle.ratelimit.take(self._loop.time())
        if rest <= 0:
            return False
        if not handle.ratelimit.exceeded:
            handle.ratelimit.exceeded = True
            most = handle.ratelimit.limit
            logger.warning("%s sends more than %d messages/s; throttled", handle.name, most)
        self._loop.remove_reader(handle.channel.fileno())
        self._loop.call_later(rest, self._resume_reading, handle, read)
        return True

    def _resume_reading(self, handle: AnyHandle, read: Callable[[AnyHandle], None]) -> None:
        known = self._workers.get(handle.worker) if isinstance(handle, WorkerHandle) else handle
        disconnected = isinstance(handle, WorkerHandle) and handle.disconnected
        if known is handle and not disconnected and handle.channel.fileno() >= 0:
            self._loop.add_reader(handle.channel.fileno(), read, handle)

    def _on_worker_message(self, handle: WorkerHandle, message: messages.FromWorker) -> None:
        match message:
            case messages.Ready():
                handle.ready = True
                self._report(ev.WorkerReady(handle.worker))
            case messages.Failed(failure=failure):
                self._report(ev.WorkerFailed(handle.worker, self._presentable(handle, failure)))
            case messages.Leaving():
                self._report(ev.WorkerLeaving(handle.worker))
                # Order it to: a worker that only claims to drain would be killed with its clients later.
                self._send(handle, messages.Retire(timeout=self.drain))
            case messages.RequestLimitReached():
                requests = handle.slot_memory.read(self._loop.time()).requests
                reason = f"it has answered {requests} requests"
                self._report(ev.WorkerLimitReached(handle.worker, reason, planned=True))
            case messages.Reforked():
                self._zygote_forked(handle, message)
            case messages.ReforkFailed(zygote=zygote, failure=failure):
                self._pending_reforks.failed(handle, zygote, self._presentable(handle, failure))
            case messages.ActivityResumed():
                self._on_activity()

    def _worker_disconnected(self, handle: WorkerHandle) -> None:
        self._loop.remove_reader(handle.channel.fileno())
        handle.disconnected = True
        if handle.pid is None and (zygote := self._zygotes.get(handle.zygote)):
            self._read_zygote(zygote)  # its message with the pid may be unread
        if handle.pid is None and handle.worker in self._workers:
            self._forget_worker(handle, "it was never forked")

    def _worker_ended(self, handle: WorkerHandle) -> None:
        assert handle.pidfd is not None
        report = process.reap(handle.pidfd)
        if report is None:
            return
        if not handle.disconnected:
            self._read_worker(handle)  # read what it sent before it exited
        if handle.output is not None:
            handle.output.drain()
        # The OOM killer's SIGKILL looks like any other; the cgroup counts the former.
        starved = report.signal == signal.SIGKILL and self._oom_kills.increased()
        how = report.describe() + (", out of memory" if starved else "")
        self._forget_worker(handle, how, out_of_memory=starved)
        if handle.serving and (report.signal is not None or report.code):
            self._wake_workers()

    def _forget_worker(
        self, handle: WorkerHandle, reason: str, *, out_of_memory: bool = False
    ) -> None:
        self._close_worker(handle)
        self._report(ev.WorkerExited(handle.worker, reason, out_of_memory))

    def _close_worker(self, handle: WorkerHandle) -> None:
        self._pending_reforks.worker_ended(handle)
        self._loop.remove_reader(handle.channel.fileno())
        handle.channel.close()
        handle.slot_memory.close()
        if handle.pidfd is not None:
            self._loop.remove_reader(handle.pidfd)
            os.close(handle.pidfd)
        self._workers.pop(handle.worker, None)
        self._fork_settled()

    def _serve_worker(self, action: ev.ServeWorker) -> None:
        if handle := self._workers.get(action.worker):
            handle.slot_memory.request_wakeup()
            self._send_serve(handle)
            if self._drain_noticed:
                self._send(handle, messages.DrainNotice())

    def limit_requests(self, requests: int) -> None:
        """Set after how many requests workers are replaced, each after its own share; 0: never."""
        if requests == self._requests:
            return
        self._requests = requests
        for handle in self._workers.values():
            if handle.serving:
                self._send_serve(handle)

    def _send_serve(self, handle: WorkerHandle) -> None:
        handle.serving = True
        share = round(self._requests * spread(handle.worker))
        self._send(handle, messages.Serve(max(1, share) if self._requests else 0))

    def _retire_worker(self, action: ev.RetireWorker) -> None:
        if handle := self._workers.get(action.worker):
            self._send(handle, messages.Retire(self.linger, self.drain))

    def _send(self, handle: WorkerHandle, message: messages.ToWorker) -> None:
        try:
            handle.channel.send(message)
            handle.send_blocked = False
        except ChannelClosedError:
            pass  # its exit will be reported
        except BlockingIOError:
            if not handle.send_blocked:
                logger.warning("%s does not read its messages; its channel is full", handle.name)
            handle.send_blocked = True

    def _kill_worker(self, action: ev.KillWorker) -> None:
        handle = self._workers.get(action.worker)
        if handle is not None and handle.pidfd is not None and action.stacks:
            self._kill_late(handle, action)
        else:
            self._end_worker(action.worker)

    def _kill_late(
        self, handle: WorkerHandle | ZygoteHandle, action: ev.KillWorker | _EndZygote
    ) -> None:
        self._expect_stacks(handle)
        until = self._loop.time() + _LATE_STACKS_TIMEOUT
        self._loop.call_later(_LATE_STACKS_POLL, self._await_stacks, handle, action, until)

    def _await_stacks(
        self,
        handle: WorkerHandle | ZygoteHandle,
        action: ev.KillWorker | _EndZygote,
        until: float,
    ) -> None:
        if handle.pidfd is None or not self._knows(handle):
            return  # it has exited meanwhile
        if handle.slot_memory.has_all_stacks() or self._loop.time() >= until:
            process.send_signal(handle.pidfd, signal.SIGKILL)
            self.on_late_stacks(action, handle.slot_memory.stacks())
        else:
            self._loop.call_later(_LATE_STACKS_POLL, self._await_stacks, handle, action, until)

    def _knows(self, handle: WorkerHandle | ZygoteHandle) -> bool:
        if isinstance(handle, WorkerHandle):
            return self._workers.get(handle.worker) is handle
        return self._zygotes.get(handle.zygote) is handle

    def _end_worker(self, worker: int) -> None:
        handle = self._workers.get(worker)
        if handle is None:
            return
        if handle.pidfd is None:
            # It has no process yet. If it is forked anyway, it finds its channel closed and exits.
            self._close_worker(handle)
        else:
            process.send_signal(handle.pidfd, signal.SIGKILL)

    def _expect_stacks(self, handle: WorkerHandle | ZygoteHandle) -> None:
        assert handle.pidfd is not None
        handle.slot_memory.expect_stacks()
        process.send_signal(handle.pidfd, stacks.SIGNAL)

    def _dump_worker(self, action: ev.DumpWorker) -> None:
        if handle := self._workers.get(action.worker):
            self._send(handle, messages.RequestTimeout(handle.slot_memory.busy_since_ns()))
            self.request_stacks(
                action.worker,
                _STACKS_DELAY,
                lambda stacks: self.on_overdue_stacks(action.worker, stacks),
            )

    def request_stacks(self, worker: int, delay: float, callback: Callable[[str], None]) -> None:
        """Have a worker write its stacks; call ``callback`` with them after ``delay`` seconds."""
        handle = self._workers.get(worker)
        if handle is None or handle.pidfd is None:
            callback("")
            return
        self._expect_stacks(handle)
        self._loop.call_later(delay, self._pass_stacks, handle, callback)

    def _pass_stacks(self, handle: WorkerHandle, callback: Callable[[str], None]) -> None:
        # If it has exited meanwhile, its memory is closed.
        alive = self._workers.get(handle.worker) is handle
        callback(handle.slot_memory.stacks() if alive else "")

    def child_changed(self) -> None:
        """Handle SIGCHLD: a child was stopped or continues, or an orphan has exited."""
        self._note_stops()
        self.reap_orphans()

    def _note_stops(self) -> None:
        for zygote in list(self._zygotes.values()):
            stopped = process.stopped(zygote.pidfd)
            if stopped is not None:
                self._report(ev.ZygoteStopped(zygote.zygote, stopped))
        for handle in list(self._workers.values()):
            if handle.pidfd is None:
                continue
            stopped = process.stopped(handle.pidfd)
            if stopped is not None:
                self._report(ev.WorkerStopped(handle.worker, stopped))
                if stopped:
                    self._wake_workers()

    def _wake_workers(self) -> None:
        # The kernel may have woken the stopped or killed worker for a connection, and wakes no other worker
        # for it.
        for handle in self._workers.values():
            if handle.ready:
                self._send(handle, messages.Heartbeat())

    def trim(self) -> None:
        """Order each worker to release memory that it does not need."""
        for handle in self._workers.values():
            self._send(handle, messages.Trim())

    def send_drain_notice(self) -> None:
        """Notify each worker, and those that start later, that the service stops soon."""
        self._drain_noticed = True
        for handle in self._workers.values():
            self._send(handle, messages.DrainNotice())

    # --- orphans -----------------------------------------------------------------------------------

    def reap_orphans(self) -> None:
        """Reap orphans of the application, which the kernel made children of the master.

        A worker may exit before the message with its pid is read. While a fork is pending, an exited child
        without a handle may be that worker, and is left for `_adopt`.
        """
        for zygote in list(self._zygotes.values()):
            self._read_zygote(zygote)
        self._orphans_wait = any(row.pid is None for row in self._workers.values())
        if self._orphans_wait:
            return
        known = {row.pid for row in self._workers.values() if row.pid is not None}
        known.update(row.pid for row in self._zygotes.values())
        for pid, report in process.reap_unknown(known):
            logger.debug("reaped an orphan, pid %d: %s", pid, report.describe())


def _error_text(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or "it has exited"


def _log_rejection(handle: WorkerHandle | ZygoteHandle, text: str) -> None:
    handle.rejected += 1
    if handle.rejected <= _REJECTIONS_LOGGED:
        more = "; further ones are not logged" if handle.rejected == _REJECTIONS_LOGGED else ""
        logger.warning("%s: %s%s", handle.name, text, more)


def _end_if_it_sent_descriptors(
    handle: WorkerHandle | ZygoteHandle, error: ChannelClosedError
) -> None:
    if isinstance(error, UnwantedDescriptorsError):
        logger.error("%s sent file descriptors to the master; killed", handle.name)
        if handle.pidfd is not None:
            process.send_signal(handle.pidfd, signal.SIGKILL)


_PERFORM: dict[type, Callable[[Pool, Any], None]] = {
    ev.SpawnZygote: Pool._spawn_zygote,
    ev.ForkZygote: Pool._fork_zygote,
    ev.GiveUpRefork: Pool._kill_zygote,
    ev.DismissZygote: Pool._dismiss_zygote,
    ev.KillZygote: Pool._kill_zygote,
    ev.ForkWorker: Pool._fork_worker,
    ev.ServeWorker: Pool._serve_worker,
    ev.RetireWorker: Pool._retire_worker,
    ev.DumpWorker: Pool._dump_worker,
    ev.KillWorker: Pool._kill_worker,
}
