"""The response of PEP 3333: what the application calls, over the engine's `ResponseWriter`."""

from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Protocol

from preforkd.http.engine import HttpEngine
from preforkd.http.response import LAST, Headers, Renderer, ResponsePlan, ResponseWriter

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_LARGE = 32 * 1024
"""Smallest body, in bytes, that is not copied behind its head."""


class ClientGoneError(Exception):
    """The client has left, or read too little for too long."""


class Sink(Protocol):
    """The receiver of a response; each method raises ClientGoneError when the client has left."""

    def send(self, data: bytes) -> None:
        """Send a part; may block until the client has read some of it."""

    def send_nowait(self, data: bytes) -> None:
        """Send the last part; never blocks."""

    def send_whole(self, head: bytes, body: bytes) -> None:
        """Send a whole answer, or the last part, that is too large to be copied."""

    def send_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file by its descriptor; never blocks."""


class Response(ResponseWriter):
    """The answer to one request, which is sent to a sink."""

    def __init__(
        self,
        sink: Sink,
        engine: HttpEngine[Any],
        renderer: Renderer,
        *,
        head_only: bool,
        http11: bool,
        keep: bool,
    ) -> None:
        super().__init__(engine, renderer, head_only=head_only, http11=http11, keep=keep)
        self._sink = sink
        self._simple = http11 and not head_only

    @property
    def started(self) -> bool:
        """Return whether `start_response` was called."""
        return self.plan is not None

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Take the status line and the headers; they are sent with the first part of the body.

        Raises ValueError for an invalid status or header.
        """
        if exc_info is not None:
            if self.head_sent:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self.plan is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self.plan = self._renderer.plan(status, headers)
        return self.write

    def send_whole(self, data: bytes) -> None:
        """Send a complete body with its head. Raises ClientGoneError."""
        plan = self.plan
        if data.__class__ is not bytes and not isinstance(data, bytes):
            raise TypeError(f"a part of a body must be bytes, not {type(data).__name__}")
        if plan is None:
            raise AssertionError("the application did not call start_response")
        if self._simple and plan.simple and plan.length == len(data) and not self.head_sent:
            self._send_simple(plan, data)
        elif self.head_sent:
            if data:
                self.write(data)
            self.finish()
        else:
            head, body = self.whole(data)
            if len(body) < _LARGE:
                self._sink.send_nowait(head + body)
            else:
                self._sink.send_whole(head, body)

    def _send_simple(self, plan: ResponsePlan, data: bytes) -> None:
        # Most answers: the head is rendered, and only the date and the body are added.
        self.head_sent = self.complete = True
        self.length = length = len(data)
        end = b"\r\n" if self.keep else LAST
        self._engine.answer_ended(self.keep)
        if length < _LARGE:
            self._sink.send_nowait(b"%b%b%b%b" % (plan.head, self._renderer.date(), end, data))
        else:
            self._sink.send_whole(b"%b%b%b" % (plan.head, self._renderer.date(), end), data)

    def write(self, data: bytes) -> None:
        """Send a part of the body. Raises ClientGoneError."""
        if not isinstance(data, bytes):
            raise TypeError(f"a part of a body must be bytes, not {type(data).__name__}")
        if not data:
            return
        if self.plan is None:
            raise AssertionError("write was called before start_response")
        framed = self.part(data)
        if not framed:
            return
        if self.over:
            self._sink.send_nowait(framed)
        else:
            self._sink.send(framed)

    def write_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file as the whole body. Raises ClientGoneError."""
        plan = self.plan
        if plan is None:
            raise AssertionError("the application did not call start_response")
        if plan.length is not None and count > plan.length:
            # The application's Content-Length bounds the part of the file that is meant.
            count = plan.length
        self._sink.send_nowait(self.begin(count))
        if not self.over:
            self.length = count  # set before sending: the unsent rest is subtracted later
            self._sink.send_file(file, offset, count)
        self.finished()

    def finish(self) -> None:
        """End the body; one that is shorter than its Content-Length ends the connection."""
        if not self.head_sent:
            self.send_whole(b"")
            return
        if end := self.end():
            self._sink.send_nowait(end)
