"""One HTTP connection: what has arrived of requests, and what the client has yet to take of answers.

The socket never blocks. What a client does not take at once is kept and sent as it reads. An
application that makes its answer in parts waits with the next one above a high-water mark, so that no
memory is at a client's mercy; an answer that is whole is in memory anyway, and never waited for.
"""

import select
import socket
import time
from collections import deque
from enum import Enum
from typing import Any

from preforkd.apps import wsgi
from preforkd.http.request import Bounds, RequestParser
from preforkd.http.response import ClientGoneError

RECEIVE = 64 * 1024
HIGH_WATER = 1 << 20
"""Bytes of answers that may wait in memory for one client."""


class Waiting(Enum):
    """What a connection waits for, which decides how long it may."""

    FIRST_REQUEST = "the first byte or the headers of a request"
    BODY = "the next part of a body"
    NEXT_REQUEST = "another request, on a kept connection"
    WRITE = "the client to read"
    GOODBYE = "the client to close"


class Connection:
    """See the module; the loop in `preforkd.worker.http` decides what happens when."""

    def __init__(self, sock: socket.socket, peer: Any, bounds: Bounds, patience: float) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            # An answer in several parts must not wait for the client's delayed acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.parser = RequestParser(bounds)
        self.waiting = Waiting.FIRST_REQUEST
        self.served = 0
        self.registered = 0
        """The events it is registered for; 0: not registered."""
        self.leaving = False
        """It ends as soon as what is pending was sent."""
        self.unread = False
        """Input may be left unread: the end must be gentle, lest a reset destroys the answer."""
        self._base: wsgi.Environ | None = None
        self._patience = patience
        self._pending: deque[memoryview] = deque()
        self._pending_size = 0

    @property
    def base_environ(self) -> wsgi.Environ:
        """What the environs of all requests of this connection have in common."""
        if self._base is None:
            self._base = wsgi.base_environ(self.sock, self.peer)
        return self._base

    @property
    def pending(self) -> bool:
        """Tell whether the client has yet to take something."""
        return bool(self._pending)

    def receive(self) -> bytes | None:
        """Return what has arrived; None: nothing yet; empty: the client will send no more.

        Raises ClientGoneError.
        """
        try:
            return self.sock.recv(RECEIVE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ClientGoneError(str(error)) from error

    def send(self, data: bytes) -> None:
        """Send a part of an answer, or keep it for later.

        Waits while more than the high-water mark is kept. Raises ClientGoneError.
        """
        if self._pending_size > HIGH_WATER:
            self._wait_for_reader()
        self.send_last(data)

    def send_last(self, data: bytes) -> None:
        """Send, or keep for later, without waiting: it is in memory already. Raises ClientGoneError."""
        sent = 0 if self._pending else self._send_now(data)
        if sent < len(data):
            self._pending.append(memoryview(data)[sent:])
            self._pending_size += len(data) - sent

    def flush(self) -> bool:
        """Send what was kept, as far as the client takes it; True when some of it was taken.

        Raises ClientGoneError.
        """
        progress = False
        while self._pending:
            sent = self._send_now(self._pending[0])
            if not sent:
                break
            progress = True
            self._pending_size -= sent
            if sent == len(self._pending[0]):
                self._pending.popleft()
            else:
                self._pending[0] = self._pending[0][sent:]
        return progress

    def _send_now(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGoneError(str(error)) from error

    def _wait_for_reader(self) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        deadline = time.monotonic() + self._patience
        while self._pending_size > HIGH_WATER // 2:
            rest = deadline - time.monotonic()
            if rest <= 0 or not poll.poll(rest * 1000):
                raise ClientGoneError("the client does not read")
            if self.flush():
                deadline = time.monotonic() + self._patience

    def say_goodbye(self) -> None:
        """Send no more; the client may still send what nobody will read. Raises ClientGoneError."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise ClientGoneError(str(error)) from error
