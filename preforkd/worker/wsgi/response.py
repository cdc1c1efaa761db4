"""The response of PEP 3333: what the application calls, over the engine's `ResponseWriter`."""

from collections.abc import Callable
from types import TracebackType
from typing import IO, Protocol

from preforkd.http.response import LARGE, LAST, Headers, ResponseWriter

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


class ClientGoneError(Exception):
    """The client has left, or read too little for too long."""


class Sink(Protocol):
    """The receiver of a response; each method raises ClientGoneError when the client has left."""

    def send(self, data: bytes) -> None:
        """Send a part; may block until the client has read some of it."""

    def send_nowait(self, data: bytes) -> None:
        """Send the last part; never blocks."""

    def send_answer(self, data: bytes) -> None:
        """Send a whole answer, at once or together with those of other connections; never blocks."""

    def send_last(self, data: bytes) -> None:
        """Send the last part of the connection, whose end follows at once; never blocks."""

    def send_whole(self, head: bytes, body: bytes) -> None:
        """Send a whole answer, or the last part, that is too large to be copied."""

    def send_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file by its descriptor; never blocks."""


class Response(ResponseWriter):
    """The answer to one request, which is sent to a sink."""

    sink: Sink
    """Set by the caller before the first call."""
    end_follows = False
    """The connection ends as soon as the application has returned, if it is not kept."""

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

    def early_hints(self, headers: Headers) -> None:
        """Send 103 with these headers, RFC 8297: ``wsgi.early_hints`` of the environ, as gunicorn has it.

        No effect for HTTP/1.0, and behind the head. Raises ValueError for an invalid header, ClientGoneError.
        """
        if self._http11 and not self.head_sent:
            self.sink.send(self._renderer.early_hints(headers))

    def send_whole(self, data: bytes, *, last: bool = False) -> None:
        """Send a complete body with its head. ``last``: the application has nothing left to do.

        Raises ClientGoneError.
        """
        if data.__class__ is not bytes and not isinstance(data, bytes):
            raise TypeError(f"a part of a body must be bytes, not {type(data).__name__}")
        if self.plan is None:
            raise AssertionError("the application did not call start_response")
        if not self._is_rendered(data):
            self._send_with_care(data)
            return
        self.complete = True
        self._engine.answer_ended(self.keep)
        self._send_rendered(data, end_follows=last and self.end_follows)

    def _is_rendered(self, body: bytes) -> bool:
        """Return whether only Date, the end of the head and this whole body are added to the plan's head."""
        plan = self.plan
        return (
            plan is not None
            and plan.length == len(body)
            and plan.simple
            and self._http11
            and not (self.head_sent or self._without_body)
        )

    def _send_rendered(self, body: bytes, *, end_follows: bool = False) -> None:
        """Send most answers: the head is rendered already."""
        plan, keep, sink = self.plan, self.keep, self.sink
        assert plan is not None
        self.head_sent = True
        self.length = length = len(body)
        end = b"\r\n" if keep else LAST
        if length >= LARGE:
            sink.send_whole(b"%b%b%b" % (plan.head, self._renderer.date(), end), body)
            return
        send = sink.send_answer if keep else sink.send_last if end_follows else sink.send_nowait
        send(b"%b%b%b%b" % (plan.head, self._renderer.date(), end, body))

    def _send_with_care(self, data: bytes) -> None:
        if self.head_sent:
            if data:
                self.write(data)
            self.finish()
            return
        head, body = self.whole(data)
        if len(body) < LARGE:
            self.sink.send_nowait(head + body)
        else:
            self.sink.send_whole(head, body)

    def write(self, data: bytes) -> None:
        """Send a part of the body. Raises ClientGoneError."""
        if not isinstance(data, bytes):
            raise TypeError(f"a part of a body must be bytes, not {type(data).__name__}")
        if not data:
            return
        if self.plan is None:
            raise AssertionError("write was called before start_response")
        if self._is_rendered(data):
            self._expected = len(data)  # what follows is too much
            self._send_rendered(data)
            return
        framed = self.part(data)
        if not framed:
            return
        if self.over:
            self.sink.send_nowait(framed)
        else:
            self.sink.send(framed)

    def write_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file as the whole body. Raises ClientGoneError."""
        plan = self.plan
        if plan is None:
            raise AssertionError("the application did not call start_response")
        if plan.length is not None and count > plan.length:
            # The application's Content-Length bounds the part of the file that is meant.
            count = plan.length
        self.sink.send_nowait(self.begin(count))
        if not self.over:
            self.length = count  # set before sending: the unsent rest is subtracted later
            self.sink.send_file(file, offset, count)
        self.finished()

    def finish(self) -> None:
        """End the body; one that is shorter than its Content-Length ends the connection."""
        if not self.head_sent:
            self.send_whole(b"")
            return
        if end := self.end():
            self.sink.send_nowait(end)
