"""The control socket: accepts clients within limits, so that no client can harm the master."""

import contextlib
import errno
import logging
import socket
from collections.abc import Callable

import preforkd
from preforkd.control.dispatch import END, Dispatcher, Identity, MalformedError
from preforkd.control.interface import Backend, Manager
from preforkd.control.permissions import Peer, may_command, peer_of
from preforkd.errors import SystemFailure
from preforkd.ipc import scm_rights
from preforkd.ipc.ratelimit import RateLimit
from preforkd.linux import bind
from preforkd.loop import Call, Loop

logger = logging.getLogger("preforkd.master")

CLIENTS = 64
"""Largest number of clients at a time; further ones are disconnected at once."""
_RESERVED = 16
"""Places that only clients which may command can take."""
MESSAGE = 64 * 1024
"""Largest size of a request, in bytes."""
READS = 200
"""Requests per second of all read-only clients together; further ones wait."""
IDLE_TIMEOUT = 60.0
"""Seconds after which a client that sends no request, or does not read its answer, is disconnected."""
_CLOSE_TIMEOUT = 2.0
_PAUSE = 1.0
"""Seconds without accepting after the system had no descriptor for a client."""
_BACKLOG = 16
_READ_SIZE = 65536
"""Bytes that are read per turn of the loop; at most one request is processed per turn."""


class _Client:
    """One client: a request is read, processed and answered before the next one is read.

    So a client that sends faster than the master answers, or does not read, waits, and nothing accumulates in
    the master. The caller closes ``sock`` when ``ended`` is called.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        service: Dispatcher,
        ratelimit: RateLimit | None,
        ended: Callable[["_Client"], None],
        *,
        peek: bool,
    ) -> None:
        """Begin to read. Raises OSError.

        ``peek``: the kernel lets the client send descriptors; see `preforkd.ipc.scm_rights`.
        """
        self._loop = loop
        self.sock = sock
        self._service = service
        self._ratelimit = ratelimit
        self._ended = ended
        self._peek = peek
        self._received = bytearray()
        """Bytes that are read and not processed; they may end within a request."""
        self._unsent = b""
        self._in_progress = False
        """A request is in progress."""
        self._at_end = False
        """The client has shut down its sending side."""
        self._closed = False
        self._next: Call | None = None
        self._active_at = loop.time()
        sock.setblocking(False)
        self._continue_within_rate()
        self._timer = loop.call_later(IDLE_TIMEOUT, self._check_idle)

    def _read(self) -> None:
        size = _READ_SIZE
        try:
            if self._peek:
                # There is no room for descriptors, so truncation means that there are some.
                seen, _, flags, _ = self.sock.recvmsg(size, 0, socket.MSG_PEEK)
                if flags & socket.MSG_CTRUNC:
                    self._reject("client sent file descriptors")
                    return
                size = len(seen)  # data that arrives meanwhile may carry some
            data = self.sock.recv(size) if size else b""
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        self._active_at = self._loop.time()
        self._received += data
        self._at_end = not data
        self._continue()

    def _continue(self) -> None:
        """Process the next complete request; read on only if there is none."""
        if self._closed or self._in_progress or self._unsent:
            return
        end = self._received.find(END)
        if end > MESSAGE or (end < 0 and len(self._received) > MESSAGE):
            self._reject(f"request larger than {MESSAGE} bytes")
        elif end >= 0:
            self._loop.remove_reader(self.sock.fileno())
            message = bytes(self._received[:end])
            del self._received[: end + 1]
            self._dispatch(message)
        elif self._at_end:
            self.abort()
        else:
            self._loop.add_reader(self.sock.fileno(), self._read)

    def _dispatch(self, message: bytes) -> None:
        self._in_progress = True
        try:
            self._service.call(message, self._answer)
        except MalformedError as error:
            self._reject(f"invalid Varlink call ({error})")
        except Exception:
            logger.exception("control socket: exception in a request")
            self.abort()

    def _answer(self, answer: bytes) -> None:
        if self._closed:
            return
        self._in_progress = False
        self._active_at = self._loop.time()
        self._unsent = answer
        self._send()

    def _send(self) -> None:
        try:
            if self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.abort()
            return
        if self._unsent:
            self._loop.add_writer(self.sock.fileno(), self._send)
            return
        self._loop.remove_writer(self.sock.fileno())
        self._continue_within_rate()

    def _continue_within_rate(self) -> None:
        # A connection counts as well, so that reconnecting for each request gains nothing.
        rest = self._ratelimit.take(self._loop.time()) if self._ratelimit else 0.0
        self._next = self._loop.call_later(rest, self._continue)

    def _check_idle(self) -> None:
        if self._in_progress:
            self._active_at = self._loop.time()
        due = self._active_at + IDLE_TIMEOUT
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._check_idle)
        elif self._unsent:
            self._reject("client does not read its answer")
        else:
            self.abort()

    def _reject(self, why: str) -> None:
        logger.warning("control socket: %s; connection closed", why)
        self.abort()

    def finish(self) -> None:
        """Disconnect as soon as the current answer is sent."""
        self._received.clear()
        self._at_end = True
        if not self._unsent:
            self.abort()

    def abort(self) -> None:
        """Disconnect at once."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        if self._next is not None:
            self._next.cancel()
        self._loop.remove_reader(self.sock.fileno())
        self._loop.remove_writer(self.sock.fileno())
        self._ended(self)


class ControlServer:
    """Serves `Manager` on a Unix socket; members of ``group`` may command too."""

    def __init__(self, loop: Loop, backend: Backend, group: str) -> None:
        self._loop = loop
        self._backend = backend
        self._group = group
        self._sock: socket.socket | None = None
        self._pause: Call | None = None
        self._full = False
        """The last client was refused, which was logged."""
        self._peek = False
        self._closing = 0
        """Number of sockets that a thread is closing; each holds its place."""
        self._clients: set[_Client] = set()
        self._read_rate = RateLimit(READS)
        self._closed: Callable[[], None] | None = None

    def start(self, path: str, mode: int) -> None:
        """Bind the path and serve it. Raises SystemFailure."""
        self._sock = bind.bind_unix(path, mode, "", "", _BACKLOG)
        self._peek = not scm_rights.refuse(self._sock)
        self.set_access(mode, self._group)
        self._listen()

    def set_access(self, mode: int, group: str) -> None:
        """Set the mode of the socket, and the group whose members may connect and command."""
        former, self._group = self._group, group
        if self._sock is None:
            return
        try:
            if group or former:
                bind.set_members(self._sock, mode, group)
            else:
                bind.set_access(self._sock, mode, "", "")
        except (OSError, SystemFailure) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if getattr(error, "errno", None) == errno.EINVAL:
                # A user namespace without that group.
                reason += "; PrivateUsers=yes hides it: see control-group.conf"
            logger.warning("control socket: cannot grant access to the group %r: %s", group, reason)

    def _listen(self) -> None:
        self._pause = None
        assert self._sock is not None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._sock is not None
        if self._closing >= CLIENTS:
            self._pause_accepting("closed connections are still being released")
            return
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._pause_accepting(error.strerror or "")
            return
        try:
            peer = peer_of(sock)
            commands = may_command(peer, self._group)
            if self._has_room(peer, commands=commands):
                service = self._service_for(peer)
                ratelimit = None if commands else self._read_rate
                client = _Client(
                    self._loop, sock, service, ratelimit, self._client_ended, peek=self._peek
                )
                self._clients.add(client)
                return
        except OSError as error:
            logger.debug("control socket: client disconnected: %s", error)
        self._close(sock)

    def _pause_accepting(self, why: str) -> None:
        # The client stays in the backlog, so the socket would be readable all the time.
        assert self._sock is not None
        logger.warning("control socket: cannot accept: %s; pausing", why)
        self._loop.remove_reader(self._sock.fileno())
        self._pause = self._loop.call_later(_PAUSE, self._listen)

    def _has_room(self, peer: Peer, *, commands: bool) -> bool:
        most = CLIENTS - (0 if commands else _RESERVED)
        full = len(self._clients) + self._closing >= most
        if full and not self._full:
            text = "control socket: %d clients are connected; refusing a client of user %d"
            logger.warning(text, len(self._clients), peer.uid)
        self._full = full
        return not full

    def _service_for(self, peer: Peer) -> Dispatcher:
        manager = Manager(self._backend, peer, self._group)
        return Dispatcher(
            Identity("preforkd", "preforkd", preforkd.VERSION, ""), [manager.interface]
        )

    def _close(self, sock: socket.socket) -> None:
        if not self._peek:
            sock.close()
            return

        def closed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._socket_closed)

        self._closing += 1
        scm_rights.close_in_thread(sock.close, closed)

    def _socket_closed(self) -> None:
        self._closing -= 1

    def _client_ended(self, client: _Client) -> None:
        self._close(client.sock)
        self._clients.discard(client)
        if not self._clients and self._closed is not None:
            closed, self._closed = self._closed, None
            closed()

    def close(self, closed: Callable[[], None]) -> None:
        """Stop accepting, send current answers, disconnect, and remove the socket's file.

        ``closed`` is called when that is done, possibly at once.
        """
        if self._sock is not None:
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._sock.fileno())
            listener, self._sock = self._sock, None
            if self._peek:  # a client in the backlog may have sent descriptors as well
                scm_rights.close_in_thread(lambda: bind.close_unix(listener))
            else:
                bind.close_unix(listener)
        if not self._clients:
            closed()
            return
        self._closed = closed
        self._loop.call_later(_CLOSE_TIMEOUT, self._abort)
        for client in list(self._clients):
            client.finish()

    def _abort(self) -> None:
        for client in list(self._clients):
            client.abort()
