"""The acceptor: a worker's listeners, its channel to the master and its signals, in one epoll.

Each listener is polled with EPOLLEXCLUSIVE, so that the kernel wakes one idle worker for a connection, and
is registered again after each accept, which moves the worker to the end of the kernel's wait queue:
without it the worker that waited last is woken first, and a few workers get all connections.  A busy worker
does not wait in epoll, so it is not chosen.  accept4(2) never blocks and no signal handler raises, so that
no connection is lost between the backlog and the application.  epoll_ctl(2)
"""

import contextlib
import errno
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from preforkd.config.address import as_ipv4
from preforkd.ipc import messages
from preforkd.ipc.channel import Channel, ChannelClosedError, MalformedMessageError, close_all
from preforkd.ipc.slots import SlotWriter
from preforkd.linux import memory

logger = logging.getLogger("preforkd.worker")

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE = 0.5
"""Seconds for which accepting pauses after the system ran out of descriptors or memory."""
_EVENTS = 64
SHORTEST_LINGER = 0.25
"""Seconds of a stop, too: a request that a client sends while its idle connection is closed would be reset."""


@dataclass(slots=True)
class Listener:
    """A shared listening socket and its name."""

    name: str
    sock: socket.socket
    kind: tuple[int, int, int] = field(init=False)
    """Family, type and protocol."""

    def __post_init__(self) -> None:
        sock = self.sock
        self.kind = int(sock.family), int(sock.type), sock.proto


@dataclass(slots=True)
class Accepted:
    """An accepted connection, still in the mode that accept(2) gave it (blocking)."""

    sock: socket.socket
    peer: Any
    listener: Listener


class Acceptor:
    """See the module. Accepts after `enable`; ``retiring`` is true when the worker has to drain and exit."""

    def __init__(
        self,
        listeners: list[Listener],
        channel: Channel[messages.ToWorker],
        slot_writer: SlotWriter,
    ) -> None:
        self.epoll = select.epoll()
        self.slot_writer = slot_writer
        self.retiring = False
        self.linger = SHORTEST_LINGER
        """Seconds for which a retiring worker keeps idle connections."""
        self.drain_timeout: float | None = None
        """Seconds for the drain, as the master ordered; None: ``timeouts.drain``."""
        self.master_gone = False
        self.drain_announced = False
        """The service stops soon; readiness probes fail, and requests are served meanwhile."""
        self.self_retired = False
        """The worker retires without an order of the master (SIGTERM, SystemExit)."""
        self.on_retiring: Callable[[], None] = lambda: None
        """Called once, when the worker begins to drain."""
        self.on_overdue: Callable[[], None] = lambda: None
        """Called before the master kills the worker for an overdue request."""
        self.pending_refork: tuple[messages.ReforkRequest, tuple[int, int]] | None = None
        """The zygote to be forked from this worker between two requests: the order and its descriptors."""
        self.refork_immediately = False
        """`on_refork` always refuses, so that it is called at once and not between two requests."""
        self.on_refork: Callable[[messages.ReforkRequest, tuple[int, int]], None] = (
            lambda _order, _descriptors: None
        )
        self._retiring_reported = False
        self._serving = False
        self._channel = channel
        self._listeners = {listener.sock.fileno(): listener for listener in listeners}
        self._sources = list(self._listeners)
        """Descriptors that are polled while accepting is enabled."""
        self._open = False
        self._final_accept = False
        """Accepting is disabled for good; the wake-ups that were received are accepted for the last time."""
        self._resume_at: float | None = None
        self._wake_read, self._wake_write = socket.socketpair()
        for sock in (self._wake_read, self._wake_write):
            sock.setblocking(False)
        self.epoll.register(channel.fileno(), select.EPOLLIN)
        self.epoll.register(self._wake_read.fileno(), select.EPOLLIN)
        self._own = {
            channel.fileno(): self._receive,
            self._wake_read.fileno(): self._clear_wakeups,
        }

    def install_signal_handler(self) -> None:
        """Let SIGTERM retire the worker; the wake-up descriptor ends the poll, signal(2)."""
        self._pid = os.getpid()
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, _frame: object) -> None:
        if os.getpid() != self._pid:
            # A child of the application, whose own handler calls the one that was installed before.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.retire()
        self.wake()  # an event loop may have replaced the wake-up descriptor, as uvloop does

    def retire(self) -> None:
        """Retire without an order of the master."""
        if not self.retiring:
            self.self_retired = True
            self.retiring = True

    def report_retiring(self) -> None:
        """Call `on_retiring` once, if the worker retires."""
        if self.retiring and not self._retiring_reported:
            self._retiring_reported = True
            self.on_retiring()

    def wake(self) -> None:
        """Wake up `poll`; may be called in any thread."""
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"\0")

    # --- the listeners ---------------------------------------------------------------------------

    @property
    def listeners(self) -> list[Listener]:
        """The listeners in the order of the settings."""
        return list(self._listeners.values())

    def descriptors(self) -> tuple[int, ...]:
        """Return the acceptor's own descriptors; -1 for those that are closed."""
        socks = [listener.sock for listener in self._listeners.values()]
        socks += [self._wake_read, self._wake_write]
        epoll = -1 if self.epoll.closed else self.epoll.fileno()
        return (epoll, *(sock.fileno() for sock in socks))

    def add_source(self, descriptor: int) -> None:
        """Poll this descriptor like a listener: while accepting is enabled, with EPOLLEXCLUSIVE."""
        self._sources.append(descriptor)

    def rearm(self, descriptor: int) -> None:
        """Move this worker to the end of the kernel's wait queue of a descriptor."""
        if self._open:
            self.epoll.unregister(descriptor)
            self.epoll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def enable(self) -> None:
        """Register the listeners; no effect during a pause and when the worker retires."""
        if self._open or self.retiring or self._resume_at is not None:
            return
        for descriptor in self._sources:
            self.epoll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._open = True

    def disable(self) -> None:
        """Unregister the listeners, so that the kernel gives their connections to other workers."""
        if not self._open:
            return
        for descriptor in self._sources:
            self.epoll.unregister(descriptor)
        self._open = False

    def accept(self, descriptor: int, *, rearm: bool = True) -> Accepted | None:
        """Accept one connection.

        Returns None when another worker was faster, the client has left, or the system has no descriptor
        or memory left; in the last case accepting pauses, so that the connection waits in the backlog for
        another worker and this one does not spin.  ``rearm``: move this worker to the end of the wait
        queue; false where it accepts more than it was woken for.
        """
        if not self._open and not self._final_accept:
            return None  # disabled after this event was fetched
        listener = self._listeners[descriptor]
        try:
            number, peer = listener.sock._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return None
        except OSError as error:
            if error.errno is None:
                raise  # not from the system: raised by a signal handler of the application
            if error.errno not in _EXHAUSTED:
                # accept(2) reports pending network errors of the new connection, which is lost.
                logger.debug("accept on %s: %s", listener.name, error)
                return None
            message = "accept on %s: %s; pausing for %g s"
            logger.error(message, listener.name, error.strerror, _PAUSE)  # noqa: TRY400
            self.disable()
            self._resume_at = time.monotonic() + _PAUSE
            return None
        # socket.accept() reads family, type and protocol again: five calls of a microsecond each.
        sock = socket.socket(*listener.kind, fileno=number)
        if rearm:
            self.rearm(descriptor)
        self.slot_writer.count_accepted()
        if listener.kind[0] == socket.AF_INET6:
            peer = as_ipv4(peer)
        return Accepted(sock, peer, listener)

    # --- waiting ---------------------------------------------------------------------------------

    def wait_for_serve(self) -> bool:
        """Wait for the master's order; return True to serve, False to retire."""
        while not (self._serving or self.retiring):
            self.poll(None)
        return not self.retiring

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for events and return those that are not the acceptor's own.

        ``timeout`` is in seconds; None: no timeout.  When the worker retires, accepting is disabled, and
        the wake-ups that were received are returned for the last time.
        """
        if self._resume_at is not None:
            rest = self.pause_remaining()
            if rest is not None and (timeout is None or rest < timeout):
                timeout = rest
        events = self.epoll.poll(timeout, _EVENTS)
        own = self._own
        for event in events:
            if event[0] in own:
                return self._handle_internal(events)
        if self.retiring:
            self._stop_accepting()
        return events

    def _handle_internal(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        own = self._own
        for descriptor, _ in events:
            if descriptor in own:
                own[descriptor]()
        if self.retiring:
            self._stop_accepting()
        return [event for event in events if event[0] not in own]

    def _stop_accepting(self) -> None:
        # The kernel wakes no other worker for the same connection, so that this one still accepts it.
        self.report_retiring()
        self._final_accept = self._open
        self.disable()

    def pause_remaining(self) -> float | None:
        """Return the seconds until a pause ends; None: there is no pause, and one that has ended is lifted."""
        if self._resume_at is None:
            return None
        rest = self._resume_at - time.monotonic()
        if rest > 0:
            return rest
        self._resume_at = None
        self.enable()
        return None

    def _clear_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)

    def _receive(self) -> None:
        try:
            received = self._channel.receive(wait=False)
        except ChannelClosedError:
            self.master_gone = True
            self.retiring = True
            self.linger = SHORTEST_LINGER
            self.epoll.unregister(self._channel.fileno())
            return
        except MalformedMessageError as error:
            logger.warning("malformed message from the master; ignored: %s", error)
            return
        if received is None:
            return
        if isinstance(received.message, messages.ReforkRequest) and len(received.descriptors) == 2:
            self._cancel_refork()
            channel, memory = received.descriptors
            self.pending_refork = received.message, (channel, memory)
            if self.refork_immediately:
                self.fork_zygote()
            return
        close_all(received.descriptors)
        self._handle(received.message)

    def _handle(self, message: messages.ToWorker) -> None:
        match message:
            case messages.Serve(requests=requests):
                self._serving = True
                self.slot_writer.set_request_limit(requests)
            case messages.Retire(linger=linger, timeout=timeout):
                self.retiring = True
                self.linger = max(linger, SHORTEST_LINGER)
                self.drain_timeout = timeout
            case messages.DrainNotice():
                self.drain_announced = True
            case messages.Heartbeat():
                self.slot_writer.heartbeat()
                for descriptor in self._sources:
                    self.rearm(descriptor)
            case messages.RequestTimeout(since=since):
                if since == self.slot_writer.busy_since_ns():
                    self.on_overdue()
            case messages.Trim():
                with self.slot_writer.busy_outside_request():
                    memory.trim()  # the collector runs finalizers of the application
                logger.debug("memory pressure: ran the garbage collector and returned free memory")
            case _:
                pass

    def fork_zygote(self) -> None:
        """Call `on_refork` for the pending refork; it does not return in the new process."""
        assert self.pending_refork is not None
        (order, descriptors), self.pending_refork = self.pending_refork, None
        self.on_refork(order, descriptors)

    def _cancel_refork(self) -> None:
        # The master sees the end of the channel and gives the attempt up.
        if self.pending_refork is not None:
            close_all(self.pending_refork[1])
            self.pending_refork = None

    def close_after_fork(self) -> None:
        """Close this process's copies, in a process that was forked from the worker.

        Nothing is unregistered: both processes share one epoll.
        """
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        for own in (self.epoll, self._wake_read, self._wake_write, self._channel):
            own.close()

    def close(self) -> None:
        """Close the epoll and this worker's copies of the listeners."""
        self._cancel_refork()
        self.disable()
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        self.epoll.close()
        self._wake_read.close()
        self._wake_write.close()
        for listener in self._listeners.values():
            listener.sock.close()
