"""The connection of a WebSocket, RFC 6455: its input, flow control, Pings, and the end.

From the accept on, `preforkd.worker.asgi.frames` reads the input.

Flow control, in both directions. At most ``websocket.queue`` messages wait for the application; then nothing
more is understood, and nothing is read from the connection, until it has taken half of them. `WebSocket.send`
waits while the transport has too much unsent output, and a client that takes too little of it is cut off
(`SendTimeout`). Pongs do not wait: while output is held up, only the last is kept, as section 5.5.3 allows.

The end. A Close of the client is answered when the application has taken the messages before it and asks for
the next, so that it can still answer them, or after ``websocket.close_timeout``; then the connection is closed.
After a Close of our own, input is dropped until the client's Close, for at most that time. When a client breaks
the protocol, it gets a Close with the reason and the end of the stream, and what it still sends is dropped, so
that no reset destroys the Close.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from preforkd.config.settings import HttpSettings, WebSocketSettings
from preforkd.worker.asgi import frames
from preforkd.worker.asgi.frames import FrameCodec, FrameError
from preforkd.worker.asgi.send_timeout import SendTimeout

_LINGER = 2.0
"""Seconds for which input is dropped behind a Close that reports an error of the client."""

Message = dict[str, Any]


class State(Enum):
    """What the application may send; the values are for its developers."""

    HANDSHAKE = "not accepted yet"
    """websocket.accept, websocket.close (403), or websocket.http.response.start."""
    RESPONSE = "answered by an HTTP response"
    """websocket.http.response.body."""
    OPEN = "accepted"
    """websocket.send, websocket.close."""
    CLOSED = "closed"
    """Nothing: it has closed the WebSocket, or completed its response."""
    GONE = "disconnected"
    """Nothing, but it may not know that yet."""


_OPEN = State.OPEN


class WebSocketConnection(asyncio.Protocol):
    """The protocol of a connection from the handshake on. Subclasses let the application answer that.

    ``limits``: of HTTP, for the timeout for sending.
    """

    __slots__ = (
        "_disconnect",
        "_frames",
        "_last_input",
        "_late_pong",
        "_loop",
        "_queue",
        "_read_paused",
        "_send_timeout",
        "_settings",
        "_state",
        "_timer",
        "_waiters",
        "_writable",
        "transport",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Any,
        settings: WebSocketSettings,
        limits: HttpSettings,
    ) -> None:
        self.transport = transport
        self._settings = settings
        self._loop = loop
        self._state = State.HANDSHAKE
        self._frames: FrameCodec | None = None
        """From the accept until input is dropped."""
        self._queue: deque[Message] = deque([{"type": "websocket.connect"}])
        self._disconnect: Message | None = None
        """What `receive` returns when the queue is empty, from then on."""
        self._waiters: list[asyncio.Future[None]] = []
        """Of calls of `receive`; there is hardly ever more than one."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._read_paused = False
        self._late_pong = b""
        self._last_input = 0.0
        """When input arrived last, by the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        """For Pings while it is open, and then for the end of the connection."""
        self._send_timeout = SendTimeout(self._loop, transport, limits, always=True)
        self._send_timeout.watch()

    def _open(self, codec: FrameCodec, rest: bytes) -> None:
        """Read frames from now on; ``rest`` has arrived before."""
        self._state = _OPEN
        self._frames = codec
        self._last_input = self._loop.time()
        if self._settings.ping_interval:
            self._start_timer(self._settings.ping_interval, self._ping)
        codec.receive(rest)
        self._read()

    # --- input -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take input."""
        codec = self._frames
        if codec is not None:
            self._last_input = self._loop.time()
            codec.receive(data)
            self._read()
        elif self._state is State.HANDSHAKE:
            self._early_data(data)

    def _early_data(self, data: bytes) -> None:
        """Keep input that has arrived before the accept."""
        raise NotImplementedError

    def _read(self) -> None:
        """Put the messages that have arrived into the queue, as many as may wait there."""
        codec, queue, limit = self._frames, self._queue, self._settings.queue
        if codec is None:
            return
        try:
            while self._state is not _OPEN or len(queue) < limit:
                message = codec.next_message()
                if message is None:
                    break
                if self._state is _OPEN:
                    key = "text" if message.__class__ is str else "bytes"
                    queue.append({"type": "websocket.receive", key: message})
        except FrameError as error:
            self._fail(error.code, error.reason)
            return
        self._wake()
        if codec.replies:
            self._send_pongs(codec)
        if codec.closed is not None:
            if not queue or self._state is not _OPEN:
                self._on_close(codec)
            else:
                self._pause_reading()
                self._start_timer(self._settings.close_timeout, partial(self._on_close, codec))
        elif self._state is _OPEN and len(queue) >= limit:
            self._pause_reading()
        else:
            self._resume_reading()

    def _wake(self) -> None:
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    def _take_more(self) -> None:
        if self._frames is not None and self._frames.closed is None:
            self._read()

    def _pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()

    def _send_pongs(self, codec: FrameCodec) -> None:
        if self._state is not _OPEN:
            pass  # nothing follows a Close
        elif self._writable.is_set():
            self.transport.write(b"".join(codec.replies))
        else:
            self._late_pong = codec.replies[-1]
        codec.replies.clear()

    def _on_close(self, codec: FrameCodec) -> None:
        close = codec.closed
        assert close is not None
        if self._state is _OPEN:
            self.transport.write(frames.close(close.code, ""))
            self._state = State.GONE
        self._finish(close.code, close.reason)
        if codec.unread:
            self._drop_input()
        else:
            self.transport.close()

    def eof_received(self) -> None:
        """Close the connection: a client that sends nothing more cannot close the WebSocket."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the application know that the client is gone."""
        super().connection_lost(exc)
        self._send_timeout.stop()
        if self._state is not State.CLOSED:
            self._state = State.GONE
        self._finish(frames.ABNORMAL, "")

    async def receive(self) -> Message:
        """Return the next message; after the end, websocket.disconnect at each call."""
        queue = self._queue
        while not queue:
            if self._disconnect is not None:
                return self._disconnect
            codec = self._frames
            if codec is not None and codec.closed is not None:
                self._on_close(codec)
            else:
                waiter = self._loop.create_future()
                self._waiters.append(waiter)
                try:
                    await waiter
                finally:
                    if waiter in self._waiters:  # it was cancelled
                        self._waiters.remove(waiter)
        message = queue.popleft()
        if self._read_paused and len(queue) <= self._settings.queue // 2:
            self._take_more()
        return message

    # --- the end ---------------------------------------------------------------------------------

    def _finish(self, code: int, reason: str) -> None:
        """Let the application know the end; the first code is the one that counts."""
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._stop_timer()
        self._wake()
        self._writable.set()

    def _send_close(self, state: State, code: int, reason: str) -> None:
        self.transport.write(frames.close(code, reason))
        self._state = state
        self._finish(code, reason)
        self._start_timer(self._settings.close_timeout, self.transport.close)
        self._read()

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection, RFC 6455, section 7.1.7."""
        if self._state is _OPEN:
            self.transport.write(frames.close(code, reason))
            self._state = State.GONE
        self._finish(code, reason)
        self._drop_input()

    def _drop_input(self) -> None:
        """End the stream, and drop what the client still sends: a reset could destroy what it has not read."""
        self._frames = None
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._start_timer(_LINGER, self.transport.close)
            self._resume_reading()
        else:
            self.transport.close()

    # --- output and time -------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Let the application's next message wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let the application send again."""
        self._writable.set()
        if self._late_pong and self._state is _OPEN:
            pong, self._late_pong = self._late_pong, b""
            self.transport.write(pong)

    def _start_timer(self, seconds: float, call: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, call)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ping(self) -> None:
        """Send a Ping if the client has been silent."""
        interval, now = self._settings.ping_interval, self._loop.time()
        rest = self._last_input + interval - now
        if rest > 0 or self._held_up():
            self._start_timer(rest if rest > 0 else interval, self._ping)
            return
        self.transport.write(frames.ping())
        self._start_timer(self._settings.ping_timeout, partial(self._check_pong, now))

    def _check_pong(self, sent: float) -> None:
        if self._last_input >= sent or self._held_up():
            self._ping()
        else:
            self._fail(frames.INTERNAL_ERROR, "no answer to a Ping")

    def _held_up(self) -> bool:
        """Return whether a Pong could not arrive: by the application, or by output that the client has not taken.

        The latter has a timeout of its own.
        """
        return self._read_paused or self.transport.get_write_buffer_size() > 0
