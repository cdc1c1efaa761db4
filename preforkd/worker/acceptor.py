"""The gate: a worker's listeners, its channel to the master, and its signals, in one epoll.

Each listener is polled with EPOLLEXCLUSIVE, so that the kernel wakes one idle worker for a
connection, and registered anew after each accept, which sends the worker to the end of the kernel's
queue: without that the worker that slept last is woken first, and a few workers get all the work.
A worker that is busy does not wait in epoll, so it is not chosen.  There is no blocking accept()
and no exception from a signal handler, so that no connection is lost between the kernel's queue and
the application.  epoll_ctl(2)
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
"""Seconds without accepting after the system ran out of descriptors or memory."""
_EVENTS = 64


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
    """A connection, still in the mode that accept(2) gave it (blocking)."""

    sock: socket.socket
    peer: Any
    listener: Listener


class Acceptor:
    """See the module. Not opened until `enable`; `retiring` says when to leave."""

    def __init__(
        self,
        listeners: list[Listener],
        channel: Channel[messages.ToWorker],
        slot_writer: SlotWriter,
    ) -> None:
        self.epoll = select.epoll()
        self.slot_writer = slot_writer
        self.retiring = False
        self.linger = 0.0
        self.drain_timeout: float | None = None
        """Seconds that a worker that is to leave has for it; None: as its settings say."""
        self.master_gone = False
        self.drain_announced = False
        """The service will stop soon, and serves on meanwhile."""
        self.self_retired = False
        """The worker leaves without having been told to by the master."""
        self.on_retiring: Callable[[], None] = lambda: None
        """Called once, when the worker begins to leave."""
        self.on_overdue: Callable[[], None] = lambda: None
        """Called when the worker is to be killed for a request that takes too long."""
        self.pending_refork: tuple[int, tuple[int, int]] | None = None
        """The zygote that this worker is to fork from itself, between two requests, and its descriptors."""
        self.refork_immediately = False
        """`on_refork` only refuses: nobody has to find a moment for it."""
        self.on_refork: Callable[[int, tuple[int, int]], None] = lambda _zygote, _descriptors: None
        self._retiring_reported = False
        self._serving = False
        self._channel = channel
        self._listeners = {listener.sock.fileno(): listener for listener in listeners}
        self._sources = list(self._listeners)
        """What is polled while the gate is open."""
        self._open = False
        self._final_accept = False
        """The worker has shut for good, and takes once more what it was woken for."""
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
        """Make SIGTERM a wish to leave, delivered through the epoll."""
        self._pid = os.getpid()
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, _frame: object) -> None:
        if os.getpid() != self._pid:
            # A child of the application's, whose own handler calls the one that it found here.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.retire()

    def retire(self) -> None:
        """Leave without having been told to."""
        if not self.retiring:
            self.self_retired = True
            self.retiring = True

    def report_retiring(self) -> None:
        """Call `on_retiring` if the worker is to leave and it was not called yet."""
        if self.retiring and not self._retiring_reported:
            self._retiring_reported = True
            self.on_retiring()

    def wake(self) -> None:
        """End the waiting in `poll`, from another thread."""
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"\0")

    # --- the listeners ---------------------------------------------------------------------------

    @property
    def listeners(self) -> list[Listener]:
        """The listeners, in their order."""
        return list(self._listeners.values())

    def descriptors(self) -> tuple[int, ...]:
        """Return all that are the gate's own; -1 for those that it has closed."""
        socks = [listener.sock for listener in self._listeners.values()]
        socks += [self._wake_read, self._wake_write]
        epoll = -1 if self.epoll.closed else self.epoll.fileno()
        return (epoll, *(sock.fileno() for sock in socks))

    def add_source(self, descriptor: int) -> None:
        """Poll this as well while the gate is open, and as exclusively as the listeners."""
        self._sources.append(descriptor)

    def rearm(self, descriptor: int) -> None:
        """Go to the end of the kernel's queue of those that wait for this descriptor."""
        if self._open:
            self.epoll.unregister(descriptor)
            self.epoll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def enable(self) -> None:
        """Register the listeners.

        Nothing happens when they are, during a pause, or when the worker is leaving.
        """
        if self._open or self.retiring or self._resume_at is not None:
            return
        for descriptor in self._sources:
            self.epoll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._open = True

    def disable(self) -> None:
        """Unregister the listeners; the kernel gives their connections to other workers."""
        if not self._open:
            return
        for descriptor in self._sources:
            self.epoll.unregister(descriptor)
        self._open = False

    def accept(self, descriptor: int, *, rearm: bool = True) -> Accepted | None:
        """Take one connection.

        None when another worker was faster, the client has left, or there is no descriptor.
        ``again``: nobody was woken for it, so that the worker's turn is as it was.

        In the last case the gate stays shut for a moment: the connection waits in the kernel's
        queue for a
        worker that can take it, and nobody spins.
        """
        if not self._open and not self._final_accept:
            return None  # shut after this event was fetched
        listener = self._listeners[descriptor]
        try:
            number, peer = listener.sock._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return None
        except OSError as error:
            if error.errno is None:
                raise  # not the system's: a signal handler's of the application
            if error.errno not in _EXHAUSTED:
                # accept(2) passes on errors of the connection that was to be accepted; it is gone.
                logger.debug("accept on %s: %s", listener.name, error)
                return None
            logger.error("accept on %s: %s; pausing", listener.name, error.strerror)  # noqa: TRY400
            self.disable()
            self._resume_at = time.monotonic() + _PAUSE
            return None
        # socket.accept() asks the listener for what it is five times, at a microsecond each.
        sock = socket.socket(*listener.kind, fileno=number)
        if rearm:
            self.rearm(descriptor)
        self.slot_writer.count_accepted()
        if listener.kind[0] == socket.AF_INET6:
            peer = as_ipv4(peer)
        return Accepted(sock, peer, listener)

    # --- waiting ---------------------------------------------------------------------------------

    def wait_for_serve(self) -> bool:
        """Wait for the master's word; True when it is to serve, False when it is to leave."""
        while not (self._serving or self.retiring):
            self.poll(None)
        return not self.retiring

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for events and return those that are not the gate's own.

        ``timeout`` is in seconds, None is for ever.  Once the worker is to leave, the listeners
        are shut, and what it was woken for is returned for the last time.
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
        # The kernel wakes nobody else for a connection for which it has woken this worker: it takes
        # that one with it.
        self.report_retiring()
        self._final_accept = self._open
        self.disable()

    def pause_remaining(self) -> float | None:
        """Return for how many seconds accepting pauses; None, and the gate opens, if not."""
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
            self.linger = 0.0
            self.epoll.unregister(self._channel.fileno())
            return
        except MalformedMessageError as error:
            logger.warning("message from the master ignored: %s", error)
            return
        if received is None:
            return
        if isinstance(received.message, messages.ReforkRequest) and len(received.descriptors) == 2:
            self._cancel_refork()
            channel, memory = received.descriptors
            self.pending_refork = received.message.zygote, (channel, memory)
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
                self.linger = linger
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
                with (
                    self.slot_writer.busy_outside_request()
                ):  # the collector runs finalizers of the application
                    memory.trim()
                logger.debug("memory is short: garbage collected, free memory given back")
            case _:
                pass

    def fork_zygote(self) -> None:
        """Fork the zygote that was asked for; `on_refork` does it, and does not return in that process."""
        assert self.pending_refork is not None
        (zygote, descriptors), self.pending_refork = self.pending_refork, None
        self.on_refork(zygote, descriptors)

    def _cancel_refork(self) -> None:
        # Whoever listens at the other end learns that nobody will answer.
        if self.pending_refork is not None:
            close_all(self.pending_refork[1])
            self.pending_refork = None

    def close_after_fork(self) -> None:
        """Close what is this worker's, in a process that was forked from it; the worker goes on.

        Nothing is unregistered: the epoll is the same one in both processes.
        """
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        for own in (self.epoll, self._wake_read, self._wake_write, self._channel):
            own.close()

    def close(self) -> None:
        """Give up the epoll and this worker's copies of the listeners."""
        self._cancel_refork()
        self.disable()
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        self.epoll.close()
        self._wake_read.close()
        self._wake_write.close()
        for listener in self._listeners.values():
            listener.sock.close()
