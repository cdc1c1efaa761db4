"""Output that a client has not taken yet.

Output that a client does not take at once is kept and sent as it reads. An answer in parts is kept in memory
up to a high-water mark and in a temporary file above it; only above the bound of that file does the
application wait. An answer in one piece is in memory anyway and stays there, unless the sum of all answers
of the worker reaches its bound; then it is spooled as well, and the application waits only where the spool
has no room.
"""

import contextlib
import fcntl
import select
import socket
import struct
import termios
from collections import deque
from dataclasses import dataclass
from typing import IO

from preforkd.http.bounds import Budget
from preforkd.worker.wsgi.file_parts import AnswerFile, FilePart
from preforkd.worker.wsgi.response import ClientGoneError
from preforkd.worker.wsgi.sockets import Socket, as_client_gone, set_nodelay

HIGH_WATER = 1 << 20
"""Bytes of answers that may be kept in memory for one client."""
_WITHOUT_WAITING = int(socket.MSG_DONTWAIT)
_WITH_END = int(socket.MSG_DONTWAIT | socket.MSG_MORE)


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


class Outbox:
    """The output of one connection; see the module. The sink of its answers."""

    __slots__ = (
        "_answer_file",
        "_fd",
        "_limits",
        "_nodelay",
        "_outstanding",
        "_pending",
        "_pending_size",
        "_plain",
        "_sock",
        "held",
        "holds",
        "sent",
    )

    def __init__(self, sock: Socket, limits: OutputLimits) -> None:
        self.sent = 0
        """Bytes of the current answer that were sent; set to 0 by the caller when an answer begins."""
        self.holds = False
        """A whole answer is held back until `flush`."""
        self.held = b""
        """An answer that is held back."""
        self._sock = sock
        self._fd = sock.fileno()
        self._limits = limits
        self._plain = True
        self._nodelay = False
        self._pending: deque[memoryview | FilePart] = deque()
        self._pending_size = 0
        """Bytes of the pending output in memory."""
        self._answer_file: AnswerFile | None = None
        """The spool of this answer; always the last of the pending output."""
        self._outstanding = 0
        """The bytes that the client had not acknowledged when `mark` was called."""

    def secure(self, sock: Socket) -> None:
        """Send by this TLS socket from now on."""
        self._sock, self._plain = sock, False

    @property
    def pending(self) -> bool:
        """Return whether output is kept."""
        return bool(self._pending or self.held)

    @property
    def unsent(self) -> int:
        """Bytes of output that the socket has not taken yet."""
        files = (part.count for part in self._pending if isinstance(part, FilePart))
        return self._pending_size + sum(files) + len(self.held)

    def send(self, data: bytes) -> None:
        """Send a part of an answer, or keep it.

        Blocks while the bounds on kept output are reached. Raises ClientGoneError.
        """
        if not self._nodelay:
            self._nodelay = True
            set_nodelay(self._sock)
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

    def send_answer(self, data: bytes) -> None:
        """Send, keep or hold back a whole answer without blocking. Raises ClientGoneError."""
        if self.holds and not self._pending:
            self.held = data
        else:
            self.send_nowait(data)

    def send_last(self, data: bytes) -> None:
        """Send or keep the last part of the connection without blocking; the caller ends it at once.

        The kernel waits for the end, which then goes with the data: tcp(7), MSG_MORE. Raises ClientGoneError.
        """
        self.send_nowait(data, _WITH_END)

    def send_nowait(self, data: bytes, flags: int = _WITHOUT_WAITING) -> None:
        """Send or keep a part without blocking: it is in memory already. Raises ClientGoneError."""
        sent = 0
        if not self._pending:
            try:
                sent = self._sock.send(data, flags)
            except BlockingIOError:
                pass
            except OSError as error:
                self._keep(data)
                raise as_client_gone(error) from None
            self.sent += sent
            if sent == len(data):
                return
        self._keep(memoryview(data)[sent:])

    def _open_answer_file(self) -> None:
        with contextlib.suppress(OSError):  # no descriptor, no disk: memory is used
            self._answer_file = AnswerFile(self._limits.budget)
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
        sent, sock = 0, self._sock
        if isinstance(sock, socket.socket) and not self._pending:
            try:
                sent = sock.sendmsg((head, body), (), _WITHOUT_WAITING)
            except BlockingIOError:
                pass
            except OSError as error:
                self._keep(head + body)
                raise as_client_gone(error) from None
            self.sent += sent
        kept = True
        for part in (head, body):
            if sent < len(part):
                kept = self._keep(memoryview(part)[sent:]) and kept
            sent = max(0, sent - len(part))
        if not self._plain:
            self.flush()
        if not kept:
            self._wait_for_client()

    def send_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file, or keep it; the file must stay open.

        Raises ClientGoneError.
        """
        self._pending.append(FilePart(file, offset, count))
        self.flush()

    def flush(self) -> bool:
        """Send kept output without blocking; return whether some of it was sent.

        Raises ClientGoneError.
        """
        before = self.sent
        if self.held:
            held, self.held = self.held, b""
            self.send_nowait(held)
        while self._pending:
            first = self._pending[0]
            if not (
                self._flush_part(first) if isinstance(first, FilePart) else self._flush_view(first)
            ):
                break
            self._pending.popleft()
            if isinstance(first, memoryview):
                self._limits.budget.give_back("memory", _held_by(first))
            if self._answer_file is not None and first is self._answer_file.part:
                self._answer_file.close()
                self._answer_file = None
        return self.sent > before

    def _flush_view(self, view: memoryview) -> bool:
        """Send kept output in memory; return whether nothing of it is left."""
        try:
            sent = self._sock.send(view, _WITHOUT_WAITING)
        except BlockingIOError:
            return False
        except OSError as error:
            raise as_client_gone(error) from None
        self._pending_size -= sent
        self.sent += sent
        if sent == len(view):
            return True
        self._pending[0] = view[sent:]
        return False

    def _flush_part(self, part: FilePart) -> bool:
        """Send kept output in a file; return whether nothing of it is left."""
        left = part.count
        try:
            part.send(self._sock)
        finally:
            self.sent += left - part.count
        return not part.count

    # --- progress --------------------------------------------------------------------------------

    def mark(self) -> None:
        """Begin a timeout: `has_progressed` measures from now on."""
        self._outstanding = self._count_outstanding()

    def has_progressed(self) -> bool:
        """Return whether the client took ``min_rate`` since `mark`, a timeout ago.

        Writability is no measure: the kernel reports it only when a good part of its buffer is free, which
        may take a slow client longer than the timeout.
        """
        least = self._limits.min_rate * self._limits.write_timeout
        return self._outstanding - self._count_outstanding() >= max(1.0, least)

    def _count_outstanding(self) -> int:
        """Return the bytes that the client has not acknowledged, those in the kernel's buffer included."""
        unsent = fcntl.ioctl(self._fd, termios.TIOCOUTQ, b"\0\0\0\0")  # SIOCOUTQ, tcp(7)
        return self.unsent + int(struct.unpack("i", unsent)[0])

    def _wait_for_client(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while self._pending_size > HIGH_WATER // 2 or self._answer_file is not None:
            self.mark()
            if not poll.poll(self._limits.write_timeout * 1000) and not self.has_progressed():
                self.reset_on_close()
                raise ClientGoneError("the client does not read")
            self.flush()

    # --- the end ---------------------------------------------------------------------------------

    def reset_on_close(self) -> None:
        """Let the end reset the connection, so that the kernel drops output that the client does not read."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def drop(self) -> None:
        """Free the pending output."""
        self.held = b""
        if self._answer_file is not None:
            self._answer_file.close()
            self._answer_file = None
        if self._pending:
            # A reference to this object must not keep the output in memory.
            held = sum(_held_by(part) for part in self._pending if isinstance(part, memoryview))
            self._limits.budget.give_back("memory", held)
            self._pending.clear()
            self._pending_size = 0


def _held_by(view: memoryview) -> int:
    """Return the bytes that a view keeps in memory: those of its whole object."""
    return len(view.obj)  # type: ignore[arg-type]
