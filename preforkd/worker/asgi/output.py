"""The output side of an HTTP connection: flow control, the timeout for sending, and what is logged of it."""

import asyncio
from typing import Any

from msgspec.structs import replace

from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, CompletedRequest
from preforkd.worker.asgi.send_timeout import SendTimeout
from preforkd.worker.asgi.shared import Shared
from preforkd.worker.asgi.transport import SocketTransport


class Output(asyncio.Protocol):
    """See the module. The transport calls `pause_writing` and `resume_writing`."""

    transport: Any
    write_paused = False
    _lost = False
    _resumed: asyncio.Event | None = None
    """Set when the client has taken enough output, or is gone."""
    _send_timeout: SendTimeout | None = None
    _written = 0
    """Bytes of all answers so far."""
    _written_before = 0
    """Bytes of all answers before the last request."""
    _missing = 0
    """Bytes of them that the client did not acknowledge; known when the connection is lost."""
    _unlogged: CompletedRequest | None = None
    """The access log's entry, until the answer is sent or the connection is lost."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    def write(self, data: bytes) -> None:
        """Send data."""
        self._written += len(data)
        self.transport.write(data)

    def write_last(self, data: bytes) -> None:
        """Send the end of the last answer; the connection is ended next."""
        self._written += len(data)
        transport = self.transport
        if isinstance(transport, SocketTransport):
            transport.write_last(data)
        else:
            transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken most of the output, or is gone."""
        if self._resumed is not None:
            await self._resumed.wait()

    def pause_writing(self) -> None:
        """Let the application wait in `drain`."""
        self.write_paused = True
        self._resumed = asyncio.Event()
        self.watch_sending()

    def resume_writing(self) -> None:
        """Let the application send again."""
        self.write_paused = False
        self._release()
        if self._unlogged is not None:
            self._log_now(self._unlogged)

    def _release(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def watch_sending(self) -> None:
        """Start the timeout for sending, if output is unsent."""
        if self._send_timeout is None:
            self._send_timeout = SendTimeout(self.shared.loop, self.transport, self.shared.limits)
        self._send_timeout.watch()

    def output_lost(self, *, whole: bool) -> None:
        """Stop the timeout, and log the last request: the connection is lost.

        ``whole``: all output was passed to the kernel, and the client did not reset the connection.
        """
        self._lost = True
        if self.shared.log is not None and not (whole and not self.write_paused):
            self._find_missing()
        if self._send_timeout is not None:
            self._send_timeout.stop()
        if self._unlogged is not None:
            self._log_now(self._unlogged)
        self._release()

    def _find_missing(self) -> None:
        timeout = self._send_timeout or SendTimeout(
            self.shared.loop, self.transport, self.shared.limits
        )
        if (acked := timeout.acked()) is not None:
            self._missing = max(0, self._written - acked)

    def log(self, entry: CompletedRequest) -> None:
        """Log a request when it is known how much of its answer was sent."""
        if not self._lost and (self.write_paused or self.transport.is_closing()):
            self._unlogged = entry
        else:
            self._log_now(entry)

    def _log_now(self, entry: CompletedRequest) -> None:
        self._unlogged = None
        if self._missing >= self._written - self._written_before > 0:
            entry = replace(entry, status=CLIENT_CLOSED_REQUEST, length=0)
        elif self._missing:
            entry = replace(entry, length=max(0, entry.length - self._missing))
        self.shared.write_log(entry)
