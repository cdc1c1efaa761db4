"""Handshakes: what precedes the handler's bytes of a stream connection, PROXY header and TLS handshake.

Any number of handshakes run at once without blocking, so that a slow client delays no other. The worker
advances them while it waits; while a handler runs, a thread does, and the connections that are complete by
then are served next. The two never run at the same time. ``http.header_timeout`` bounds each connection's
handshakes.
"""

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from preforkd.config.settings import ListenSettings, Settings
from preforkd.http.forwarded import Trust
from preforkd.http.proxy_header import ProxyHeader, ProxyHeaderError
from preforkd.worker.acceptor import Accepted, Acceptor

if TYPE_CHECKING:
    import ssl

    from preforkd.worker.tls import TlsSocket

logger = logging.getLogger("preforkd.worker")

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class _ClientGoneError(Exception):
    """The client has left before the end of the handshake."""


class _Handshake:
    """The handshakes of one connection."""

    def __init__(
        self, accepted: Accepted, deadline: float, *, proxied: bool, tls: "ssl.SSLContext | None"
    ) -> None:
        self.accepted = accepted
        self.fd = accepted.sock.fileno()
        self.deadline = deadline
        self.events = 0
        """The epoll events that it is registered for; 0: not registered."""
        self._header = ProxyHeader() if proxied else None
        self._tls = tls
        self._secure: TlsSocket | None = None
        accepted.sock.setblocking(False)

    def step(self) -> int:
        """Advance without blocking; return the event to wait for, 0 when the handshakes are complete.

        Raises OSError, ProxyHeaderError and _ClientGoneError.
        """
        if self._header is not None:
            if not self._read_header(self._header):
                return _IN
            if self._header.source is not None:
                self.accepted.peer = _peer(*self._header.source)
            self._header = None
        if self._tls is not None and self._secure is None:
            from preforkd.worker.tls import TlsSocket  # noqa: PLC0415 - OpenSSL only where TLS is on

            self._secure = TlsSocket(self.accepted.sock, self._tls)
            self.accepted.sock = self._secure.socket
        if self._secure is not None and not self._secure.handshake():
            return _OUT if self._secure.wants_write else _IN
        self.accepted.sock.setblocking(True)
        return 0

    def _read_header(self, header: ProxyHeader) -> bool:
        sock = self.accepted.sock
        while not header.done:
            try:
                count = header.peek(sock.recv(4096, socket.MSG_PEEK))
                data = sock.recv(count) if count else b""
            except BlockingIOError:
                return False
            if not data:
                raise _ClientGoneError("the proxy left within its header")
            header.take(data)
        return True

    def close_after_fork(self) -> None:
        """Close this process's copy without sending anything to the client."""
        os.close(self.accepted.sock.detach())


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
        if self._admits(accepted, entry):
            deadline = time.monotonic() + self._timeout
            tls = self._tls if entry.tls else None
            try:
                handshake = _Handshake(accepted, deadline, proxied=entry.proxy_protocol, tls=tls)
            except OSError as error:
                logger.debug("connection from %s: %s", accepted.peer, error)
                accepted.sock.close()
                return True
            self._pending[handshake.fd] = handshake
            self._step(handshake)
            self._count()
        return True

    def _admits(self, accepted: Accepted, entry: ListenSettings) -> bool:
        remote = accepted.peer[0] if isinstance(accepted.peer, tuple) else ""
        if not entry.proxy_protocol or self._trust.trusts(remote):
            return True
        logger.warning("connection from %s refused: not in proxy.trusted", remote or "unix")
        accepted.sock.close()
        return False

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
            handshake.close_after_fork()
        for accepted in self.completed:
            os.close(accepted.sock.detach())
        self._epoll.close()

    def _step(self, handshake: _Handshake) -> None:
        # An error ends the connection that it occurred on, and no other.
        try:
            events = handshake.step()
            if events:
                self._register(handshake, events)
                return
            self._remove(handshake)
            self.completed.append(handshake.accepted)
        except (OSError, ProxyHeaderError, _ClientGoneError) as error:
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
            handshake.accepted.sock.close()

    def _count(self) -> None:
        self._acceptor.slot_writer.set_connections(len(self._pending) + len(self.completed))
