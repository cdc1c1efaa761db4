"""One HTTP connection: its socket, its engine, its outbox, and the request that is in hand.

Which module writes what: `connections` what it waits for and is registered for; `accepting` the opening;
`serving` and `reading` the request; `answering` the response, ``served`` and ``after_sending``; `records` the
record.
"""

import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import IO, TYPE_CHECKING

from preforkd.apps import wsgi
from preforkd.config.address import as_ipv4
from preforkd.http.body import BodyStore
from preforkd.http.engine import EndOfRequest, HttpEngine
from preforkd.http.states import State
from preforkd.logs.access_log import CompletedRequest
from preforkd.worker.listener_context import CachedHead, ListenerContext
from preforkd.worker.openings import Opening
from preforkd.worker.wsgi.outbox import Outbox, OutputLimits
from preforkd.worker.wsgi.response import Response
from preforkd.worker.wsgi.sockets import Socket, as_client_gone

if TYPE_CHECKING:
    from preforkd.worker.tls import TlsSocket

FIRST_RECEIVE = 4096
"""Bytes of the first receive on an idle connection; bytes behind the head are copied."""
RECEIVE = 16 * 1024
RECEIVE_BODY = 256 * 1024


class Waiting(IntEnum):
    """What a connection waits for, which decides its timeout."""

    OPENING = 0
    """The TLS handshake, or the head of the PROXY protocol."""
    FIRST_REQUEST = 1
    """The first byte of a request on a new connection, or the rest of a head."""
    BODY = 2
    """The next part of a body."""
    NEXT_REQUEST = 3
    """Another request, on an idle connection."""
    WRITE = 4
    """The client to read."""
    CLOSE = 5
    """The client to close."""


@dataclass(slots=True)
class Request:
    """A complete request that waits for the application; its owner closes the body."""

    cached: CachedHead
    body: IO[bytes]
    length: int


class Connection:
    """See the module."""

    __slots__ = (
        "_store",
        "_window",
        "after_sending",
        "context",
        "engine",
        "fd",
        "opening",
        "outbox",
        "record",
        "registered",
        "remote",
        "remote_port",
        "request",
        "response",
        "secure",
        "served",
        "server_name",
        "sock",
        "tls_environ",
        "waiting",
    )

    def __init__(
        self,
        sock: Socket,
        context: ListenerContext,
        limits: OutputLimits,
        remote: str,
        remote_port: str,
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.context = context
        self.remote = remote
        self.remote_port = remote_port
        self.server_name = _server_name(sock) if context.wildcard else ""
        """The address that the client connected to; empty where the listener has a single one."""
        self.tls_environ: dict[str, str] | None = None
        """What the environ of each of its requests has with TLS."""
        self.engine: HttpEngine[CachedHead] = HttpEngine(context.bounds, context.cached_head)
        self.outbox = Outbox(sock, limits)
        self.secure: TlsSocket | None = None
        """The socket with TLS; None: the descriptor carries HTTP."""
        self.waiting: Waiting | None = None
        """None: its request is with the application, or will be next."""
        self.registered = 0
        """The epoll events that it is registered for; 0: not registered."""
        self.served = 0
        """Requests that were answered."""
        self.opening: Opening | None = None
        """What precedes HTTP; None when it is complete."""
        self.request: Request | None = None
        """A complete request that waits for the application."""
        self.response: Response | None = None
        """The answer in progress; None between two calls of the application."""
        self.record: CompletedRequest | None = None
        """The access log's record of the last answer, until it is known how much of it was sent."""
        self.after_sending: Callable[[], None] | None = None
        """Called when everything is sent, or nothing will be any more."""
        self._store: BodyStore | None = None
        """The body of an incomplete request."""
        self._window = 0.0, 0
        """The start of the current window of the body's rate (monotonic), and the bytes received by then."""

    @property
    def closed(self) -> bool:
        """Return whether the connection was closed, or has to be."""
        return self.engine.server is State.CLOSED

    @property
    def unfinished(self) -> bool:
        """Return whether output is pending, or the application has to close its answer."""
        return self.outbox.pending or self.after_sending is not None

    def opened(self, opening: Opening, context: ListenerContext) -> None:
        """Continue with what the opening found: the client that a proxy named, and TLS."""
        self.opening = None
        self.context = context
        self.engine = HttpEngine(context.bounds, context.cached_head)
        if opening.source is not None:
            self.remote, self.remote_port = opening.source
        if opening.secure is not None:
            self.sock = self.secure = opening.secure
            self.outbox.secure(opening.secure)
            self.tls_environ = opening.secure.environ()

    # --- in --------------------------------------------------------------------------------------

    def receive(self) -> bytes | None:
        """Return received bytes; None: nothing yet; empty: the client has shut down its sending side.

        Raises ClientGoneError.
        """
        # malloc(3) maps and unmaps a buffer that is much too large at each call.
        size = min(max(RECEIVE, self.engine.expected), RECEIVE_BODY)
        try:
            return self.sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise as_client_gone(error) from None

    def receive_into(self, view: memoryview) -> int:
        """Receive into a buffer; return the count: 0 when nothing has arrived, or nothing will.

        Only without TLS. Raises ClientGoneError.
        """
        assert isinstance(self.sock, socket.socket)
        try:
            return self.sock.recv_into(view, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise as_client_gone(error) from None

    def has_decrypted(self) -> bool:
        """Return whether decrypted bytes wait to be received, which epoll does not report."""
        return self.secure is not None and self.secure.has_decrypted()

    def take_request(self) -> bool:
        """Take the next complete request from the engine; return False if there is none.

        Raises RequestError and StorageError.
        """
        engine = self.engine
        event = engine.next_event()
        if event is None:
            return False
        if not isinstance(event, EndOfRequest):
            if engine.client is State.DONE:
                self.request = Request(event, io.BytesIO(), 0)
                return True
            self._store = engine.sink = BodyStore(self.context.bounds)
            if not isinstance(engine.next_event(), EndOfRequest):
                return False
        cached, store = engine.parsed, self._store
        assert cached is not None
        assert store is not None
        self._store = None
        self.request = Request(cached, store.finish(), store.length)
        return True

    def drop_body(self) -> None:
        """Free the body of an incomplete request."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def begin_window(self) -> None:
        """Begin to measure the rate of the body."""
        self._window = time.monotonic(), self.engine.received

    def is_too_slow(self, timeout: float, min_rate: int) -> bool:
        """Return whether a body arrived at less than ``min_rate`` in a window of ``timeout`` seconds."""
        since, before = self._window
        if time.monotonic() - since <= timeout:
            return False
        self.begin_window()
        return self.engine.received - before < timeout * min_rate

    # --- the end ---------------------------------------------------------------------------------

    def shutdown_write(self) -> None:
        """Shut down the sending side; input is still received. Raises ClientGoneError."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise as_client_gone(error) from None

    def close_after_fork(self) -> None:
        """Close this process's copies without sending anything: another process has the connection."""
        self._free_request()
        # Closing a plain socket sends nothing while another copy is open; TLS would send close_notify.
        sock = self._opened_sock()
        getattr(sock, "close_after_fork", sock.close)()

    def close(self) -> None:
        """Close and free everything, except ``after_sending``, which is still to be called."""
        self.engine.aborted()
        self._free_request()
        self.outbox.drop()
        self._opened_sock().close()

    def _opened_sock(self) -> Socket:
        # TLS takes the descriptor away from the socket that was accepted.
        opening = self.opening
        return self.sock if opening is None else opening.secure or opening.sock

    def _free_request(self) -> None:
        self.drop_body()
        if self.request is not None:
            self.request.body.close()


def _server_name(sock: Socket) -> str:
    assert isinstance(sock, socket.socket)
    return wsgi.server_name(as_ipv4(sock.getsockname())[0])
