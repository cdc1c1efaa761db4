"""Handshakes: the openings of stream connections, while a handler runs and while none does.

Any number of handshakes run at once without blocking, so that a slow client delays no other. The worker
advances them while it waits; while a handler runs, a thread does, and the connections that are complete by
then are served next. The two never run at the same time. ``http.header_timeout`` bounds each connection's
handshakes.
"""

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from preforkd.config.settings import Settings
from preforkd.http.forwarded import Trust
from preforkd.http.proxy_header import ProxyHeaderError
from preforkd.worker.acceptor import Accepted, Acceptor
from preforkd.worker.openings import Opening, admits

logger = logging.getLogger("preforkd.worker")

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class _Handshake:
    """The opening of one accepted connection, and when it ends."""

    def __init__(self, accepted: Accepted, opening: Opening, deadline: float) -> None:
        self.accepted = accepted
        self.fd = accepted.sock.fileno()
        self.opening = opening
        self.deadline = deadline
        self.events = 0
        """The epoll events that it is registered for; 0: not registered."""

    def completed(self) -> Accepted:
        """Return the connection as the handler gets it: blocking, and with the client as its peer."""
        accepted, opening = self.accepted, self.opening
        if opening.source is not None:
            accepted.peer = _peer(*opening.source)
        accepted.sock = opening.sock
        accepted.sock.setblocking(True)
        return accepted


def _peer(address: str, port: str) -> Any:
    # In the form that accept(2) returns for that family.
    return (address, int(port), 0, 0) if ":" in address else (address, int(port))


class Handshakes:
    """The handshakes of a worker; see the module.

    Raises ConfigurationError for a certificate that cannot be used.
    """

    def __init__(self, acceptor: Acceptor, settings: Settings) -> None:
        self.completed: deque[Accepted] = deque()
        """Connections that are ready for the handler, with the client as their peer."""
        self._acceptor = acceptor
        self._entries = {entry.name or entry.address: entry for entry in settings.listen}
        self._trust = Trust(settings.proxy.trusted)
        self._tls = None
        if any(entry.tls for entry in settings.listen):
            from preforkd.worker import tls  # noqa: PLC0415 - OpenSSL only where TLS is on

            self._tls = tls.server_context(settings.tls, ())
        self._timeout = settings.http.header_timeout
        self._max_connections = settings.http.connections
        self._pending: dict[int, _Handshake] = {}
        """In the order of their deadlines, as all have the same timeout."""
        self._stop = -1
        self._epoll = select.epoll()
        acceptor.epoll.register(self._epoll.fileno(), _IN)

    def __bool__(self) -> bool:
        """Return whether there are connections that the handler has not served."""
        return bool(self._pending or self.completed)

    def descriptors(self) -> tuple[int, ...]:
        """Return the descriptors that are closed in a child of the application; negative ones are ignored."""
        waiting = (accepted.sock.fileno() for accepted in self.completed)
        return (self._epoll.fileno(), self._stop, *self._pending, *waiting)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a handshake can advance."""
        return self._epoll.fileno()

    @property
    def full(self) -> bool:
        """Return whether the bound on connections is reached."""
        return len(self._pending) + len(self.completed) >= self._max_connections

    def timeout(self) -> float | None:
        """Return the seconds until something is due; None: nothing is."""
        return 0.0 if self.completed else self._rest()

    def _rest(self) -> float | None:
        for handshake in self._pending.values():
            return max(0.0, handshake.deadline - time.monotonic())
        return None

    def begin(self, accepted: Accepted) -> bool:
        """Begin the handshakes of a connection; return False if its listener has none."""
        entry = self._entries.get(accepted.listener.name)
        if entry is None or not (entry.tls or entry.proxy_protocol):
            return False
        remote = accepted.peer[0] if isinstance(accepted.peer, tuple) else ""
        if entry.proxy_protocol and not admits(self._trust, remote):
            accepted.sock.close()
            return True
        context = self._tls if entry.tls else None
        opening = Opening(accepted.sock, proxied=entry.proxy_protocol, context=context)
        handshake = _Handshake(accepted, opening, time.monotonic() + self._timeout)
        self._pending[handshake.fd] = handshake
        self._step(handshake)
        self._count()
        return True

    def advance(self) -> None:
        """Advance the handshakes that can, and close those past their deadline."""
        for descriptor, _ in self._epoll.poll(0):
            if (handshake := self._pending.get(descriptor)) is not None:
                self._step(handshake)
        now = time.monotonic()
        for handshake in list(self._pending.values()):
            if handshake.deadline > now:
                break
            logger.debug("connection from %s: handshake timed out", handshake.accepted.peer)
            self._close(handshake)
        self._count()

    @contextlib.contextmanager
    def advancing_in_thread(self) -> Iterator[None]:
        """Let a thread advance the handshakes while a handler runs."""
        if not self._pending:
            yield
            return
        self._stop = stop = os.eventfd(0)
        self._epoll.register(stop, _IN)
        thread = threading.Thread(target=self._run, name="preforkd-handshakes", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            logger.warning(
                "cannot start the handshake thread; handshakes wait while the handler runs: %s",
                error,
            )
        try:
            yield
        finally:
            os.eventfd_write(stop, 1)
            if thread.ident is not None:
                thread.join()
            self._epoll.unregister(stop)
            os.close(stop)
            self._stop = -1

    def _run(self) -> None:
        stop = self._stop
        while self._pending:
            if any(descriptor == stop for descriptor, _ in self._epoll.poll(self._rest())):
                return
            self.advance()

    def close_after_fork(self) -> None:
        """Close this process's copies, in a process that was forked from the worker."""
        for handshake in self._pending.values():
            os.close(handshake.opening.sock.detach())
        for accepted in self.completed:
            os.close(accepted.sock.detach())
        self._epoll.close()

    def _step(self, handshake: _Handshake) -> None:
        # An error ends the connection that it occurred on, and no other.
        try:
            events = handshake.opening.step()
            if events:
                self._register(handshake, events)
                return
            self._remove(handshake)
            self.completed.append(handshake.completed())
        except (OSError, ProxyHeaderError) as error:
            logger.debug("connection from %s: %s", handshake.accepted.peer, error)
            self._close(handshake)
        except Exception:
            logger.exception("connection from %s failed", handshake.accepted.peer)
            self._close(handshake)

    def _register(self, handshake: _Handshake, events: int) -> None:
        if events == handshake.events:
            return
        if handshake.events:
            self._epoll.modify(handshake.fd, events)
        else:
            self._epoll.register(handshake.fd, events)
        handshake.events = events

    def _remove(self, handshake: _Handshake) -> None:
        self._pending.pop(handshake.fd, None)
        if handshake.events:
            with contextlib.suppress(OSError):  # closed by the ssl module after a failure
                self._epoll.unregister(handshake.fd)

    def _close(self, handshake: _Handshake) -> None:
        self._remove(handshake)
        with contextlib.suppress(OSError):
            handshake.opening.sock.close()

    def _count(self) -> None:
        self._acceptor.slot_writer.set_connections(len(self._pending) + len(self.completed))
