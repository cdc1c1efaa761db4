"""The timeout for sending: how a client that takes too little of its answer is recognized."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from typing import Any

from preforkd.config.settings import HttpSettings

_ACKED = struct.Struct("120xQ")
"""tcpi_bytes_acked in the kernel's struct tcp_info, tcp(7)."""


class SendTimeout:
    """The timeout for sending: it aborts a connection whose client takes too little.

    While output is unsent, the client must take ``http.min_rate`` bytes a second, checked every
    ``http.body_timeout`` seconds. ``always``: check without a call of `watch` as well.
    """

    def __init__(
        self, loop: Any, transport: Any, limits: HttpSettings, *, always: bool = False
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._timeout = limits.body_timeout
        self._least = limits.min_rate * limits.body_timeout
        self._always = always
        self._timer: asyncio.TimerHandle | None = None
        self._lost = False
        self._unsent = 0
        self._progress_before = (0, 0)

    def watch(self) -> None:
        """Start the timer, if output is unsent and it does not run."""
        if self._timer is not None or self._lost:
            return
        self._unsent = self._transport.get_write_buffer_size()
        if self._unsent or self._always:
            self._progress_before = self._progress()
            self._timer = self._loop.call_later(self._timeout, self._check)

    def stop(self) -> None:
        """Stop the timer: the connection is lost."""
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        if self._unsent and self._transport.get_write_buffer_size():
            acked, other = self._progress()
            enough = acked - self._progress_before[0] >= max(1, min(self._least, self._unsent))
            if not enough and other == self._progress_before[1]:
                self._transport.abort()
                return
        self.watch()

    def acked(self) -> int | None:
        """Return the bytes that the client has acknowledged; None where the kernel does not count them."""
        sock = self._transport.get_extra_info("socket")
        try:
            if sock.family != socket.AF_UNIX:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
                return int(_ACKED.unpack(info)[0])
        except OSError:
            pass
        return None

    def _progress(self) -> tuple[int, int]:
        """Return the acknowledged bytes; where not counted, a number that changes as the client reads."""
        if (acked := self.acked()) is not None:
            return acked, 0
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
            unread: int = struct.unpack("i", queued)[0]
            return 0, unread + self._transport.get_write_buffer_size()
        return 0, 0
