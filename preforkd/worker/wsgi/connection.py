"""One HTTP connection: the input of its requests, and the output that the client has not taken yet.

Output that a client does not take at once is kept and sent as it reads. An answer in parts is kept in memory
up to a high-water mark and in a temporary file above it; only above the bound of that file does the
application wait. An answer in one piece is in memory anyway and stays there, unless the sum of all answers
of the worker reaches its bound; then it is spooled as well, and the application waits only where the spool
has no room.
"""

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import struct
import tempfile
import termios
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import IO, Any, Protocol

from preforkd.apps import wsgi
from preforkd.config.address import as_ipv4
from preforkd.http.head import Budget
from preforkd.http.request import Request, RequestReader
from preforkd.logs.access_log import CompletedRequest
from preforkd.worker.listener_context import CachedHead, ListenerContext
from preforkd.worker.wsgi.response import ClientGoneError, Response

FIRST_RECEIVE = 4096
"""Bytes of the first receive on an idle connection; bytes behind the head are copied."""
RECEIVE = 16 * 1024
RECEIVE_BODY = 256 * 1024
HIGH_WATER = 1 << 20
"""Bytes of answers that may be kept in memory for one client."""
_WITHOUT_WAITING = socket.MSG_DONTWAIT
_FILE_BLOCK = 1 << 20
_OF_FILES = {errno.EIO, errno.ESTALE, errno.ENODATA, errno.EINVAL}
"""Errors of sendfile(2) that concern the file, not the client."""

logger = logging.getLogger("preforkd.worker")


class Waiting(Enum):
    """What a connection waits for, which decides its timeout."""

    HANDSHAKE = "the TLS handshake, or the head of the PROXY protocol"
    FIRST_REQUEST = "the first byte or the headers of a request"
    BODY = "the next part of a body"
    NEXT_REQUEST = "another request, on an idle connection"
    WRITE = "the client to read"
    CLOSE = "the client to close"


class Socket(Protocol):
    """The methods of a socket that are used; `preforkd.worker.tls.TlsSocket` has them as well."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return received bytes. Raises BlockingIOError if there are none."""

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send without blocking; return the bytes sent. Raises BlockingIOError if there is no room."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def shutdown(self, how: int, /) -> None:
        """End one direction or both."""

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option of the socket."""

    def close(self) -> None:
        """Close the socket."""


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """The bounds of the output that is kept for clients."""

    write_timeout: float
    """Seconds in which a client must take ``min_rate`` bytes times their number of an answer."""
    budget: Budget
    """Shared by all connections of the worker."""
    min_rate: int = 0
    spool: int = 0
    """Bytes of an answer in parts that may be spooled; 0: no answer is spooled."""


@dataclass(slots=True)
class _FilePart:
    file: IO[bytes]
    """A reference, so that its descriptor stays open."""
    offset: int
    count: int


def _truncated(part: _FilePart, why: str) -> ClientGoneError:
    # The connection is cut off, as the length was announced; the client is not to blame.
    try:
        name = os.readlink(f"/proc/self/fd/{part.file.fileno()}")
    except (OSError, ValueError):
        name = "a file"
    logger.warning("%s was sent incompletely, %d bytes are missing: %s", name, part.count, why)
    return ClientGoneError(f"{name}: {why}")


class _AnswerFile:
    """The spool of one answer: an unnamed file with the parts that are not kept in memory."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see close
        self.part = _FilePart(self._file, 0, 0)
        """The part of the file that is not sent yet."""

    @property
    def size(self) -> int:
        """Bytes in the file, sent ones included."""
        return self.part.offset + self.part.count

    def append(self, data: bytes | memoryview) -> None:
        """Append data. Raises OSError, and nothing of it is kept then."""
        part, size = self.part, len(data)
        if not self._budget.take("files", size):
            raise OSError(errno.ENOSPC, "the answers of this worker use all of their spool")
        try:
            rest, end = memoryview(data), self.size
            while rest:
                done = os.pwrite(part.file.fileno(), rest, end)
                rest, end = rest[done:], end + done
        except BaseException:
            self._budget.give_back("files", size)
            raise
        part.count += size

    def close(self) -> None:
        """Close the file and give its bytes back to the budget."""
        self._budget.give_back("files", self.size)
        self._file.close()


class Connection:
    """See the module; `preforkd.worker.wsgi.loop` decides what happens when."""

    __slots__ = (
        "_answer_file",
        "_limits",
        "_nodelay",
        "_pending",
        "_pending_size",
        "_reader",
        "after_sending",
        "body_window",
        "client_gone",
        "closed",
        "closing",
        "context",
        "ended",
        "fd",
        "handshake",
        "idle",
        "maybe_more",
        "outstanding_before",
        "plain",
        "registered",
        "remote",
        "remote_port",
        "request",
        "response",
        "sent",
        "sent_before",
        "served",
        "server_name",
        "sock",
        "unlogged",
        "unread",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        sock: Socket,
        context: ListenerContext,
        limits: OutputLimits,
        remote: str,
        remote_port: str,
    ) -> None:
        self.sock = sock
        self.sent = self.sent_before = 0
        """Bytes sent, in all and before the current answer."""
        self.unlogged: CompletedRequest | None = None
        """The access log's entry of the last answer, until it is known how much of it was sent."""
        self.fd = sock.fileno()
        self.context = context
        self.remote, self.remote_port = remote, remote_port
        self.server_name = _server_name(sock) if context.wildcard else ""
        """The address that the client connected to; empty where the listener has a single one."""
        self.plain = True
        """Not TLS: the descriptor carries HTTP."""
        self.waiting: Waiting | None = None
        """None: its request is with the application, or will be next."""
        self.served = 0
        self.registered = 0
        """The epoll events that it is registered for; 0: not registered."""
        self.closing = False
        """Closed as soon as the pending output is sent."""
        self.unread = False
        """Input may be left unread: a lingering close, so that a reset does not destroy the answer."""
        self.ended = False
        """No further request of it is served."""
        self.idle = True
        """No input has arrived, no output is pending, and it is not TLS."""
        self.maybe_more = False
        """The last receive filled its buffer: there is probably more."""
        self.client_gone = False
        """The client left while a thread of the pool answered."""
        self.closed = False
        self.request: Request[CachedHead] | None = None
        """A complete request that waits for the application."""
        self.response: Response | None = None
        """The answer in progress; None between two calls of the application."""
        self.body_window = 0.0, 0
        """The start of the current window of the body's rate (monotonic), and the bytes received by then."""
        self.handshake: Callable[[], bool] | None = None
        """Advances what precedes HTTP (TLS, PROXY header); returns True when it is complete."""
        self.after_sending: Callable[[], None] | None = None
        """Called when everything is sent, or nothing will be any more."""
        self._limits = limits
        self._reader: RequestReader[CachedHead] | None = None
        self._pending: deque[memoryview | _FilePart] = deque()
        self._pending_size = 0
        """Bytes of the pending output in memory."""
        self._answer_file: _AnswerFile | None = None
        """The spool of this answer; always the last of the pending output."""
        self.outstanding_before = 0
        """What `outstanding` returned at the beginning of the current timeout."""
        self._nodelay = False

    # --- in --------------------------------------------------------------------------------------

    @property
    def reader(self) -> RequestReader[CachedHead]:
        """The parser of the input; created when a request does not arrive in one piece."""
        if self._reader is None:
            self._reader = RequestReader(self.context.bounds, self.context.cached_head)
        return self._reader

    @property
    def between_requests(self) -> bool:
        """Return whether no byte of a request has arrived since the last one."""
        return self._reader is None or not self._reader.started

    def drop_reader(self) -> None:
        """Free an empty reader: idle connections must be cheap."""
        if self._reader is not None and not self._reader.started:
            self._reader = None

    def receive(self) -> bytes | None:
        """Return received bytes; None: nothing yet; empty: the client has shut down its sending side.

        Raises ClientGoneError.
        """
        size = RECEIVE
        if self._reader is not None and self._reader.in_body:
            # malloc(3) maps and unmaps a buffer that is much too large at each call.
            size = min(max(size, self._reader.expected), RECEIVE_BODY)
        try:
            return self.sock.recv(size, _WITHOUT_WAITING)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _as_client_gone(error) from None

    def receive_into(self, view: memoryview) -> int:
        """Receive into a buffer; return the count: 0 when nothing has arrived, or nothing will.

        Raises ClientGoneError.
        """
        assert isinstance(self.sock, socket.socket)
        try:
            return self.sock.recv_into(view, 0, _WITHOUT_WAITING)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _as_client_gone(error) from None

    # --- out -------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Return whether output is kept."""
        return bool(self._pending)

    @property
    def unsent(self) -> int:
        """Bytes of output that the socket has not taken yet."""
        files = (part.count for part in self._pending if isinstance(part, _FilePart))
        return self._pending_size + sum(files)

    @property
    def unfinished(self) -> bool:
        """Return whether output is pending, or the application has to close its answer."""
        return bool(self._pending) or self.after_sending is not None

    def send(self, data: bytes) -> None:
        """Send a part of an answer, or keep it.

        Blocks while the bounds on kept output are reached. Raises ClientGoneError.
        """
        if not self._nodelay:
            self._nodelay = True
            set_nodelay(self.sock)
        if (self._pending_size > HIGH_WATER or self._answer_file is not None) and self._spill(data):
            return
        self.send_nowait(data)

    def _spill(self, data: bytes) -> bool:
        """Spool a part; return False if there was no room, and there is room in memory by now."""
        self.flush()
        if self._answer_file is None:
            if self._pending_size <= HIGH_WATER:
                return False
            if self._limits.spool:
                self._open_answer_file()
        if (
            self._answer_file is not None
            and self._answer_file.size + len(data) <= self._limits.spool
        ):
            with contextlib.suppress(OSError):  # a full disk: wait for the client instead
                self._answer_file.append(data)
                return True
        try:
            self._wait_for_client()
        except ClientGoneError:
            self._keep(data)
            raise
        return False

    def send_nowait(self, data: bytes) -> None:
        """Send or keep a part without blocking: it is in memory already. Raises ClientGoneError."""
        sent = 0
        if not self._pending:
            try:
                sent = self.sock.send(data, _WITHOUT_WAITING)
            except BlockingIOError:
                pass
            except OSError as error:
                self._keep(data)
                raise _as_client_gone(error) from None
            self.sent += sent
            if sent == len(data):
                return
        self._keep(memoryview(data)[sent:])

    def _open_answer_file(self) -> None:
        with contextlib.suppress(OSError):  # no descriptor, no disk: memory is used
            self._answer_file = _AnswerFile(self._limits.budget)
            self._pending.append(self._answer_file.part)

    def _keep(self, data: bytes | memoryview) -> bool:
        """Keep output; return False if it exceeds the bounds, and is kept in memory all the same."""
        answers, view = self._limits.budget, memoryview(data)
        # Output behind the spool must stay behind it.
        kept = self._answer_file is None and answers.take("memory", _held_by(view))
        if not kept and self._keep_in_file(view):
            return True
        if not kept:
            answers.give_back("memory", -_held_by(view))  # beyond the bound
        self._pending.append(view)
        self._pending_size += len(view)
        return kept

    def _keep_in_file(self, data: bytes | memoryview) -> bool:
        if self._answer_file is None and self._limits.spool:
            self._open_answer_file()
        answer_file = self._answer_file
        if answer_file is None or self._pending[-1] is not answer_file.part:
            return False
        try:
            answer_file.append(data)
        except OSError:
            return False
        return True

    def send_whole(self, head: bytes, body: bytes) -> None:
        """Send or keep head and body without copying them.

        Blocks while the bounds on kept output are exceeded. Raises ClientGoneError.
        """
        sent, sock = 0, self.sock
        if isinstance(sock, socket.socket) and not self._pending:
            try:
                sent = sock.sendmsg((head, body), (), _WITHOUT_WAITING)
            except BlockingIOError:
                pass
            except OSError as error:
                self._keep(head + body)
                raise _as_client_gone(error) from None
            self.sent += sent
        kept = True
        for part in (head, body):
            if sent < len(part):
                kept = self._keep(memoryview(part)[sent:]) and kept
            sent = max(0, sent - len(part))
        if not self.plain:
            self.flush()
        if not kept:
            self._wait_for_client()

    def send_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file, or keep it; the file must stay open.

        Raises ClientGoneError.
        """
        self._pending.append(_FilePart(file, offset, count))
        self.flush()

    def flush(self) -> bool:
        """Send kept output without blocking; return whether some of it was sent.

        Raises ClientGoneError.
        """
        progress = False
        while self._pending:
            first = self._pending[0]
            if isinstance(first, _FilePart):
                size = first.count
                sent = self._send_file_now(first)
            else:
                sent, size = self._send_now(first), len(first)
                self._pending_size -= sent
                self.sent += sent
                if 0 < sent < size:
                    self._pending[0] = first[sent:]
            progress = progress or sent > 0
            if sent < size:
                break
            self._pending.popleft()
            if isinstance(first, memoryview):
                self._limits.budget.give_back("memory", _held_by(first))
            if self._answer_file is not None and first is self._answer_file.part:
                self._answer_file.close()
                self._answer_file = None
        return progress

    def outstanding(self) -> int:
        """Return the bytes that the client has not acknowledged, those in the kernel's buffer included."""
        unsent = fcntl.ioctl(self.fd, termios.TIOCOUTQ, b"\0\0\0\0")  # SIOCOUTQ, tcp(7)
        return self.unsent + int(struct.unpack("i", unsent)[0])

    def _send_now(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data, _WITHOUT_WAITING)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _as_client_gone(error) from None

    def _send_file_now(self, part: _FilePart) -> int:
        """Send a part of a file without blocking; count each step, as a later one may fail."""
        try:
            descriptor = part.file.fileno()
        except ValueError:
            raise _truncated(part, "the application closed it") from None
        before = self.sent
        try:
            if self.plain:
                os.set_blocking(self.fd, False)  # sendfile(2) has no flag for it
            while part.count:
                if self.plain:
                    done = os.sendfile(self.fd, descriptor, part.offset, part.count)
                else:
                    done = self._send_block(part, descriptor)
                if not done:
                    raise _truncated(part, "it was truncated while it was sent")
                part.offset += done
                part.count -= done
                self.sent += done
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in _OF_FILES:
                raise _truncated(part, str(error)) from error
            raise _as_client_gone(error) from None
        return self.sent - before

    def _send_block(self, part: _FilePart, descriptor: int) -> int:
        try:
            block = os.pread(descriptor, min(_FILE_BLOCK, part.count), part.offset)
        except OSError as error:
            raise _truncated(part, str(error)) from error
        return self.sock.send(block, _WITHOUT_WAITING) if block else 0

    def _wait_for_client(self) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        while self._pending_size > HIGH_WATER // 2 or self._answer_file is not None:
            left = self.outstanding()
            if not poll.poll(self._limits.write_timeout * 1000) and not self.has_progressed(left):
                self.reset_on_close()
                raise ClientGoneError("the client does not read")
            self.flush()

    def has_progressed(self, left: int) -> bool:
        """Return whether the client took ``min_rate`` since ``outstanding`` was ``left``, a timeout ago.

        Writability is no measure: the kernel reports it only when a good part of its buffer is free, which
        may take a slow client longer than the timeout.
        """
        least = self._limits.min_rate * self._limits.write_timeout
        return left - self.outstanding() >= max(1.0, least)

    # --- the end ---------------------------------------------------------------------------------

    def shutdown_write(self) -> None:
        """Shut down the sending side; input is still received. Raises ClientGoneError."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _as_client_gone(error) from None

    def reset_on_close(self) -> None:
        """Let `close` reset the connection, so that the kernel drops output that the client does not read."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close_after_fork(self) -> None:
        """Close this process's copies without sending anything: another process has the connection."""
        if self._reader is not None:
            self._reader.close()
        if self.request is not None:
            self.request.body.close()
        # Closing a plain socket sends nothing while another copy is open; TLS would send close_notify.
        getattr(self.sock, "close_after_fork", self.sock.close)()

    def close(self) -> None:
        """Close and free everything, except ``after_sending``, which is still to be called."""
        self.closed = True
        self.handshake = (
            None  # it refers to this connection: only the garbage collector would free the cycle
        )
        if self._reader is not None:
            self._reader.close()
        if self.request is not None:
            self.request.body.close()
        if self._answer_file is not None:
            self._answer_file.close()
        if self._pending:
            # A reference to this connection must not keep the output in memory.
            held = sum(_held_by(part) for part in self._pending if isinstance(part, memoryview))
            self._limits.budget.give_back("memory", held)
            self._pending.clear()
            self._pending_size = 0
        self.sock.close()


def _held_by(view: memoryview) -> int:
    """Return the bytes that a view keeps in memory: those of its whole object."""
    return len(view.obj)  # type: ignore[arg-type]


def _as_client_gone(error: Exception) -> Exception:
    """Return ClientGoneError for an error of the system; one of a signal handler is returned as it is."""
    if isinstance(error, OSError) and error.errno is None:
        return error
    return ClientGoneError(str(error))


def set_nodelay(sock: Socket) -> None:
    """Set TCP_NODELAY, so that parts do not wait for the client's delayed acknowledgement, tcp(7)."""
    if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # a connection that is gone: the next call raises
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _server_name(sock: Socket) -> str:
    assert isinstance(sock, socket.socket)
    return wsgi.server_name(as_ipv4(sock.getsockname())[0])
