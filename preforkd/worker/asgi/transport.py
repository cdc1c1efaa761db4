"""A plain connection as an asyncio transport that costs little where connections are short.

asyncio's own transports (and uvloop's) are made by a coroutine, ask the kernel for both addresses, and poll
the descriptor from the beginning.  Here a request is received where the connection was accepted, mostly in
the same turn of the loop, and the descriptor is polled only if the connection outlives that turn.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

_FIRST_RECEIVE = 4096
"""Bytes of a receive; malloc(3) maps and unmaps a buffer that is much too large at each call."""
_RECEIVE = 128 * 1024
"""Bytes of a receive behind one that filled its buffer."""
_HIGH_WATER, _LOW_WATER = 64 * 1024, 16 * 1024
"""Bytes of unsent output above which the protocol is asked to pause, and below which to resume."""
_NOW = socket.MSG_DONTWAIT
_RESET = struct.pack("ii", 1, 0)


class SocketTransport(asyncio.Transport):
    """See the module.

    ``on_error`` gets an exception that the protocol raised; the connection is cut off. ``on_stay`` is called when
    the connection outlives the turn in which it was accepted.
    """

    __slots__ = (
        "_closing",
        "_eof",
        "_fd",
        "_loop",
        "_lost",
        "_on_error",
        "_on_stay",
        "_paused",
        "_pending",
        "_pending_size",
        "_protocol",
        "_size",
        "_sock",
        "_watched",
        "_writing_paused",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: Any,
        on_error: Callable[[BaseException], None],
        on_stay: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol = protocol
        self._on_error = on_error
        self._on_stay: Callable[[], None] | None = on_stay
        self._size = _FIRST_RECEIVE
        self._pending: deque[memoryview] = deque()
        self._pending_size = 0
        self._watched = False
        """The loop polls for input."""
        self._paused = False
        """The protocol wants no input, or there will be none."""
        self._writing_paused = False
        self._eof = False
        """The sending side is shut down when the pending output is sent."""
        self._closing = False
        self._lost = False
        """``connection_lost`` is called in the next turn of the loop, or was called."""

    def begin(self) -> None:
        """Give the connection to the protocol, and receive what has arrived with it."""
        self._protocol.connection_made(self)
        self.receive()
        # The answer to a request that has arrived may end the connection in the next turn.
        self._loop.call_soon(self._watch)

    # --- input -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not (self._watched or self._paused or self._closing):
            if self._on_stay is not None:
                self._on_stay()
                self._on_stay = None
                if self._sock.family != socket.AF_UNIX:
                    with contextlib.suppress(OSError):  # a lost connection: receiving reports it
                        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._watched = True
            self._loop.add_reader(self._fd, self.receive)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._fd)

    def receive(self) -> None:
        """Receive what has arrived, without waiting."""
        try:
            size = self._size
            try:
                data = self._sock.recv(size, _NOW)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno is None:
                    raise  # not from the system: raised by a signal handler of the application
                self._lose(error)
                return
            if data:
                self._size = _RECEIVE if len(data) == size else _FIRST_RECEIVE
                self._protocol.data_received(data)
                return
            self._unwatch()
            self._paused = True
            if not self._protocol.eof_received():
                self.close()
        except BaseException as error:
            self.abort()
            self._on_error(error)

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`."""
        self._paused = True
        self._unwatch()

    def resume_reading(self) -> None:
        """Receive again."""
        self._paused = False
        self._watch()

    def is_reading(self) -> bool:
        """Return whether input is received."""
        return not (self._paused or self._closing)

    # --- output ----------------------------------------------------------------------------------

    def write_last(self, data: bytes) -> None:
        """Send data behind which `close` or `write_eof` is called: the end goes in the same packet, tcp(7)."""
        self.write(data, _NOW | socket.MSG_MORE)

    def write(self, data: Any, flags: int = _NOW) -> None:
        """Send data, or keep what the client does not take yet."""
        if self._lost or not data:
            return
        if not self._pending:
            try:
                sent = self._sock.send(data, flags)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                if error.errno is None:
                    raise
                self._pending_size = len(data)
                self._lose(error)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._on_writable)
        self._pending.append(memoryview(data))
        self._pending_size += len(data)
        if self._pending_size > _HIGH_WATER and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def _on_writable(self) -> None:
        try:
            self._flush()
            if self._writing_paused and self._pending_size <= _LOW_WATER:
                self._writing_paused = False
                self._protocol.resume_writing()
            if self._closing and not self._pending:
                self._lose(None)
        except OSError as error:
            if error.errno is None:
                raise
            self._lose(error)
        except BaseException as error:
            self.abort()
            self._on_error(error)

    def _flush(self) -> None:
        pending = self._pending
        while pending:
            first = pending[0]
            try:
                sent = self._sock.send(first, _NOW)
            except BlockingIOError:
                return
            self._pending_size -= sent
            if sent < len(first):
                pending[0] = first[sent:]
                return
            pending.popleft()
        self._loop.remove_writer(self._fd)
        if self._eof:
            self._sock.shutdown(socket.SHUT_WR)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that are not sent yet."""
        return self._pending_size

    def can_write_eof(self) -> bool:
        """Return True: the sending side can be shut down alone."""
        return True

    def write_eof(self) -> None:
        """Shut down the sending side when everything is sent."""
        if self._eof or self._closing or self._lost:
            return
        self._eof = True
        if not self._pending:
            with contextlib.suppress(OSError):  # a connection that is gone: receiving reports it
                self._sock.shutdown(socket.SHUT_WR)

    # --- the end ---------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or will be when its output is sent."""
        return self._closing

    def close(self) -> None:
        """Close the connection when everything is sent."""
        if not self._closing:
            self._closing = True
            self._unwatch()
            if not self._pending:
                self._lose(None)

    def close_now(self) -> None:
        """Close an idle connection in this turn of the loop: a request that arrives before is not reset."""
        if not (self._lost or self._pending):
            self._closing = self._lost = True
            self._unwatch()
            self._end(None)

    def abort(self) -> None:
        """Close the connection; the kernel drops output that the client has not taken."""
        if self._pending and not self._lost:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        self._closing = True
        if self._lost:
            return
        self._lost = True
        self._unwatch()
        if self._pending:
            self._loop.remove_writer(self._fd)
            self._pending.clear()
        self._loop.call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._sock.close()

    # --- about it --------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket as ``socket``, and the default for all else."""
        return self._sock if name == "socket" else default

    def set_protocol(self, protocol: Any) -> None:
        """Give the connection to another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> Any:
        """Return the protocol."""
        return self._protocol
