"""One HTTP connection: what has arrived of requests, and what the client has yet to take of answers.

What a client does not take at once is kept and sent as it reads. Of an answer that the application
makes in parts, what exceeds a high-water mark is kept in a temporary file, so that neither memory nor
the worker is at a client's mercy; only above the file's bound does the application wait. An answer that
is whole is in memory anyway, and waits there, as long as all answers of the worker together do not take
too much; then it waits in a file as well, and only where that finds no room the application waits.
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
from preforkd.http.response import ClientGoneError, Response
from preforkd.logs.access_log import CompletedRequest
from preforkd.worker.wsgi.listener_context import CachedHead, ListenerContext

FIRST_RECEIVE = 4096
"""Bytes that are taken where mostly a small request is; what is behind a head is copied."""
RECEIVE = 16 * 1024
RECEIVE_BODY = 256 * 1024
HIGH_WATER = 1 << 20
"""Bytes of answers that may wait in memory for one client."""
_WITHOUT_WAITING = socket.MSG_DONTWAIT
_FILE_BLOCK = 1 << 20
_OF_FILES = {errno.EIO, errno.ESTALE, errno.ENODATA, errno.EINVAL}
"""What sendfile(2) says of the file, and not of the client."""

logger = logging.getLogger("preforkd.worker")


class Waiting(Enum):
    """What a connection waits for, which decides how long it may."""

    NOTHING = "nothing: a request of it is with the application, or about to be"
    HANDSHAKE = "the TLS handshake, or the head of the PROXY protocol"
    FIRST_REQUEST = "the first byte or the headers of a request"
    BODY = "the next part of a body"
    NEXT_REQUEST = "another request, on a kept connection"
    WRITE = "the client to read"
    CLOSE = "the client to close"


class Socket(Protocol):
    """What is needed of a socket; a TLS one has the same methods (`preforkd.worker.tls`)."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return what has arrived; BlockingIOError: nothing has."""

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send as much as is taken at once; BlockingIOError: nothing is."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def shutdown(self, how: int, /) -> None:
        """End one direction or both."""

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option."""

    def close(self) -> None:
        """Close it."""


@dataclass(slots=True)
class _FilePart:
    file: IO[bytes]
    """Held, so that its descriptor stays open."""
    offset: int
    count: int


def _truncated(part: _FilePart, why: str) -> ClientGoneError:
    # The client is cut off, as the answer's length was promised; it is not to blame.
    try:
        name = os.readlink(f"/proc/self/fd/{part.file.fileno()}")
    except (OSError, ValueError):
        name = "a file"
    logger.warning("%s was not sent whole, %d bytes are missing: %s", name, part.count, why)
    return ClientGoneError(f"{name}: {why}")


class _AnswerFile:
    """A nameless file with the parts of an answer that do not fit into memory."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see close
        self.part = _FilePart(self._file, 0, 0)
        """What of it is yet to be sent."""

    @property
    def size(self) -> int:
        """Bytes of the file, those that were sent included."""
        return self.part.offset + self.part.count

    def append(self, data: bytes | memoryview) -> None:
        """Keep a part behind the others. Raises OSError, having kept nothing of it."""
        part, size = self.part, len(data)
        if not self._budget.take("files", size):
            raise OSError(errno.ENOSPC, "the answers that wait take all that they may")
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
        """Give it up."""
        self._budget.give_back("files", self.size)
        self._file.close()


class Connection:
    """See the module; the loop in `preforkd.worker.wsgi.loop` decides what happens when."""

    __slots__ = (
        "_answer_file",
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
        self, sock: Socket, context: ListenerContext, remote: str, remote_port: str
    ) -> None:
        self.sock = sock
        self.sent = self.sent_before = 0
        """Bytes that the socket has taken; and those that it had before the present answer."""
        self.unlogged: CompletedRequest | None = None
        """What the access log is to say of the last answer, when it is known how much of it was sent."""
        self.fd = sock.fileno()
        self.context = context
        self.remote = remote
        self.remote_port = remote_port
        self.server_name = _server_name(sock) if context.wildcard else ""
        """The address that the client has connected to, where the listener does not say it."""
        self.plain = True
        """Not TLS: the descriptor is all there is of it."""
        self.waiting = Waiting.NOTHING
        self.served = 0
        self.registered = 0
        """The events it is registered for; 0: not registered."""
        self.closing = False
        """It ends as soon as what is pending was sent."""
        self.unread = False
        """Input may be left unread: the end must be gentle, lest a reset destroys the answer."""
        self.ended = False
        """No request of it is taken any more."""
        self.idle = True
        """Nothing of a request has arrived, nothing is pending, and it is not TLS."""
        self.maybe_more = False
        """The last look found a full buffer: there is probably more."""
        self.client_gone = False
        """The client has left while a thread of the crew answered."""
        self.closed = False
        self.request: Request[CachedHead] | None = None
        """Complete, and not yet with the application."""
        self.response: Response | None = None
        """The answer that is being given, or was given last."""
        self.body_window = 0.0, 0
        """When the body's present pace began to be judged, and its bytes by then."""
        self.handshake: Callable[[], bool] | None = None
        """What comes before HTTP (handshake, PROXY protocol); True when it is done."""
        self.after_sending: Callable[[], None] | None = None
        """To be called when everything was sent, or nothing will be any more."""
        self._reader: RequestReader[CachedHead] | None = None
        self._pending: deque[memoryview | _FilePart] = deque()
        self._pending_size = 0
        """Bytes of it in memory."""
        self._answer_file: _AnswerFile | None = None
        """The last that is pending, if there is one."""
        self.outstanding_before = 0
        """What the client had yet to take when it was last looked at."""
        self._nodelay = False

    # --- in --------------------------------------------------------------------------------------

    @property
    def reader(self) -> RequestReader[CachedHead]:
        """What makes requests of what arrives; made when a request does not come in one piece."""
        if self._reader is None:
            self._reader = RequestReader(self.context.bounds, self.context.cached_head)
        return self._reader

    @property
    def between_requests(self) -> bool:
        """Tell whether nothing of a request has arrived."""
        return self._reader is None or not self._reader.started

    def drop_reader(self) -> None:
        """Give back the memory of a reader that is empty: an idle connection is cheap."""
        if self._reader is not None and not self._reader.started:
            self._reader = None

    def receive(self) -> bytes | None:
        """Return what has arrived; None: nothing yet; empty: the client will send no more.

        Raises ClientGoneError.
        """
        size = RECEIVE
        if self._reader is not None and self._reader.in_body:
            # A buffer that is much too large is mapped and unmapped each time.
            size = min(max(size, self._reader.expected), RECEIVE_BODY)
        try:
            return self.sock.recv(size, _WITHOUT_WAITING)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _as_client_gone(error) from None

    def receive_into(self, view: memoryview) -> int:
        """Receive into this; return how many bytes: 0 when nothing more has arrived, or will.

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
        """Tell whether the client has yet to take something."""
        return bool(self._pending)

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        files = (part.count for part in self._pending if isinstance(part, _FilePart))
        return self._pending_size + sum(files)

    @property
    def unfinished(self) -> bool:
        """Tell whether something is pending, or the application has yet to close what was sent."""
        return bool(self._pending) or self.after_sending is not None

    def send(self, data: bytes) -> None:
        """Send a part of an answer, or keep it for later.

        Waits for the client while all that may be kept is kept. Raises ClientGoneError.
        """
        if not self._nodelay:
            self._nodelay = True
            set_nodelay(self.sock)
        if (self._pending_size > HIGH_WATER or self._answer_file is not None) and self._spill(data):
            return
        self.send_nowait(data)

    def _spill(self, data: bytes) -> bool:
        """Keep a part in the file; False: there was no room, and now there is some in memory."""
        self.flush()
        if self._answer_file is None:
            if self._pending_size <= HIGH_WATER:
                return False
            if self.context.answer_spool:
                self._open_answer_file()
        if (
            self._answer_file is not None
            and self._answer_file.size + len(data) <= self.context.answer_spool
        ):
            with contextlib.suppress(OSError):  # a full disk: the client is waited for instead
                self._answer_file.append(data)
                return True
        try:
            self._wait_for_client()
        except ClientGoneError:
            self._keep(data)
            raise
        return False

    def send_nowait(self, data: bytes) -> None:
        """Send, or keep for later, without waiting: it is in memory already. Raises ClientGoneError."""
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
        with contextlib.suppress(OSError):  # no descriptor, no disk: there is memory
            self._answer_file = _AnswerFile(self.context.answers)
            self._pending.append(self._answer_file.part)

    def _keep(self, data: bytes | memoryview) -> bool:
        """Keep what is not taken at once; False: there was room for it nowhere, and it is in memory."""
        answers, view = self.context.answers, memoryview(data)
        # What is behind a file stays behind it.
        kept = self._answer_file is None and answers.take("memory", _held_by(view))
        if not kept and self._keep_in_file(view):
            return True
        if not kept:
            answers.give_back("memory", -_held_by(view))  # beyond the bound
        self._pending.append(view)
        self._pending_size += len(view)
        return kept

    def _keep_in_file(self, data: bytes | memoryview) -> bool:
        if self._answer_file is None and self.context.answer_spool:
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
        """Send both, or keep them for later, without copying.

        Waits for the client where what is kept finds no room. Raises ClientGoneError.
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
        """Send a part of a file, or keep it for later; the file must stay open.

        Raises ClientGoneError.
        """
        self._pending.append(_FilePart(file, offset, count))
        self.flush()

    def flush(self) -> bool:
        """Send what was kept, as far as the client takes it; True when some of it was taken.

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
                self.context.answers.give_back("memory", _held_by(first))
            if self._answer_file is not None and first is self._answer_file.part:
                self._answer_file.close()
                self._answer_file = None
        return progress

    def outstanding(self) -> int:
        """Return how many bytes the client has yet to take: those in the kernel's buffer as well."""
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
        """Send of a file what the client takes; count each step, as a later one may fail."""
        try:
            descriptor = part.file.fileno()
        except ValueError:
            raise _truncated(part, "the application has closed it") from None
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
                    raise _truncated(part, "it became shorter while it was sent")
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
            if not poll.poll(self.context.write_timeout * 1000) and not self.has_progressed(left):
                self.reset_on_close()
                raise ClientGoneError("the client does not read")
            self.flush()

    def has_progressed(self, left: int) -> bool:
        """Tell whether the client has taken enough since so much was left, within the patience.

        Not every byte that it takes makes the socket writable: the kernel waits for a good part of
        its buffer, and a slow client's whole patience may fall between.
        """
        least = self.context.min_rate * self.context.write_timeout
        return left - self.outstanding() >= max(1.0, least)

    # --- the end ---------------------------------------------------------------------------------

    def shutdown_write(self) -> None:
        """Send no more; the client may still send what nobody will read. Raises ClientGoneError."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _as_client_gone(error) from None

    def reset_on_close(self) -> None:
        """Let the end be a reset: what the kernel keeps for a client that does not read goes as well."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close_after_fork(self) -> None:
        """Close this process's copies, without a word to the client: another one goes on with it."""
        if self._reader is not None:
            self._reader.close()
        if self.request is not None:
            self.request.body.close()
        # Closing a socket says nothing, but TLS would.
        getattr(self.sock, "close_after_fork", self.sock.close)()

    def close(self) -> None:
        """Give up everything but what is to be called after the sending."""
        self.closed = True
        self.handshake = None  # it knows this connection: nothing but the collector would free them
        if self._reader is not None:
            self._reader.close()
        if self.request is not None:
            self.request.body.close()
        if self._answer_file is not None:
            self._answer_file.close()
        if self._pending:
            # Whoever still knows this connection keeps no answer.
            held = sum(_held_by(part) for part in self._pending if isinstance(part, memoryview))
            self.context.answers.give_back("memory", held)
            self._pending.clear()
            self._pending_size = 0
        self.sock.close()


def _held_by(view: memoryview) -> int:
    """Return the bytes that a view keeps in memory: all of the object of which it may show the rest only."""
    return len(view.obj)  # type: ignore[arg-type]


def _as_client_gone(error: Exception) -> Exception:
    """Return what an error of the system tells of the client; others are a signal handler's own."""
    if isinstance(error, OSError) and error.errno is None:
        return error
    return ClientGoneError(str(error))


def set_nodelay(sock: Socket) -> None:
    """Let the parts of an answer not wait for the client's delayed acknowledgement (tcp(7))."""
    if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # of one that has gone, the next step tells
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _server_name(sock: Socket) -> str:
    assert isinstance(sock, socket.socket)
    return wsgi.server_name(as_ipv4(sock.getsockname())[0])
