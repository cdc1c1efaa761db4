"""The engine of an HTTP/1.1 connection: input to requests, and the states of both sides. RFC 9112.

The caller gives received bytes to `HttpEngine.receive` and takes events from `next_event`.  The body of a
request goes to a sink that the caller chooses after the head: one that keeps it whole
(`preforkd.http.body.BodyStore`), or one that passes it on as it comes.  Answers are made by
`preforkd.http.response.ResponseWriter`, which reports their beginning and end here.

A request behind one that is being answered is not evaluated before that answer is complete.  So garbage behind
a valid request is refused after its answer, and no byte is inserted into an answer.
"""

import re
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from preforkd.http.framing import BodySink, Chunked, Counted, Fields, framing
from preforkd.http.head import Bounds, RequestError, RequestHead, refuse_early
from preforkd.http.states import CLIENT, SERVER, State, Step, after

_EMPTY_LINES = re.compile(rb"(?:\r\n)*")
_IDLE, _HEAD, _BODY, _DONE = State.IDLE, State.HEAD, State.BODY, State.DONE
_MUST_CLOSE, _CLOSED = State.MUST_CLOSE, State.CLOSED


class HasHead(Protocol):
    """The caller's own object for a parsed head."""

    head: RequestHead


Parsed = TypeVar("Parsed", bound=HasHead)


class EndOfRequest:
    """The end of a body. ``trailers``: the fields behind its last chunk, which are no headers."""

    __slots__ = ("trailers",)

    def __init__(self, trailers: Fields) -> None:
        self.trailers = trailers


class HttpEngine(Generic[Parsed]):
    """The state of one connection; see the module.

    ``find`` returns the caller's object for the bytes of a complete head, which it may cache; it raises
    RequestError.
    """

    __slots__ = (
        "_bounds",
        "_checked",
        "_find",
        "_framing",
        "_searched",
        "buffer",
        "client",
        "end_of_input",
        "parsed",
        "server",
        "sink",
        "unread",
        "wants_continue",
    )

    def __init__(self, bounds: Bounds, find: Callable[[bytes], Parsed]) -> None:
        self.client = _IDLE
        """What the client has sent of the current request."""
        self.server = _IDLE
        """What the server has sent of its answer."""
        self.parsed: Parsed | None = None
        """The head of the current request, or of the last one; None: its head is incomplete or invalid."""
        self.sink: BodySink | None = None
        """Where the body goes; set by the caller between the event of the head and the next one."""
        self.buffer = b""
        """Input behind that of which an event was returned."""
        self.wants_continue = False
        """The client waits for 100 Continue before it sends the body; reset by the caller that sends it."""
        self.unread = False
        """Input may be left at the end: the caller reads on, so that a reset does not destroy the answer."""
        self.end_of_input = False
        """The client has shut down its sending side."""
        self._bounds = bounds
        self._find = find
        self._framing: Counted | Chunked | None = None
        self._searched = 0
        self._checked = 0

    # --- the client's side -----------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take input; empty: the client has shut down its sending side."""
        if not data:
            self.end_of_input = True
        elif self.client not in (_MUST_CLOSE, _CLOSED):
            self.buffer = self.buffer + data if self.buffer else data

    def next_event(self) -> Parsed | EndOfRequest | None:
        """Return the next event; None: more input is needed, or the answer is not complete, or nothing follows.

        A head: ``client`` is BODY, or DONE where no body follows; then no EndOfRequest comes.
        Raises RequestError, after which ``client`` is MUST_CLOSE, and what the sink raises.
        """
        try:
            if self.client is _BODY:
                return self._take_body()
            if self.client is _IDLE or self.client is _HEAD:
                return self._take_head()
        except BaseException:
            self._client(Step.REFUSED)
            raise
        return None

    def take_whole(self, parsed: Parsed, rest: bytes = b"") -> None:
        """Take a complete request, whose bytes the caller has recognized, or which another process received.

        ``rest``: input behind it.
        """
        if self.client is not _IDLE or self.server is not _IDLE:
            self._client(Step.WHOLE_REQUEST)  # raises
        self.client, self.server = _DONE, _HEAD
        self.parsed = parsed
        self.buffer = rest

    def _take_head(self) -> Parsed | None:
        data = self.buffer
        if data.startswith(b"\r\n"):
            # RFC 9112, section 2.2: empty lines before a request are ignored.
            data = self.buffer = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]
            self._searched = 0
        end = data.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._check_incomplete(data)
            return None
        self.parsed = None  # of the last request: this head may be refused
        self._searched = self._checked = 0
        parsed = self.parsed = self._find(data[: end + 4])
        head = parsed.head
        frame = framing(head.length, self._bounds)
        self.buffer = data[end + 4 :]
        self.sink = None
        step = Step.WHOLE_REQUEST if frame.done else Step.REQUEST
        self._client(step)
        self.server = after(SERVER, self.server, step)
        if not frame.done:
            self._framing = frame
            self.wants_continue = head.expects_continue and not self.buffer
        return parsed

    def _check_incomplete(self, data: bytes) -> None:
        if data and self.client is _IDLE:
            self._client(Step.BEGUN)
            self.parsed = None
        if data and data != b"\r":
            self._checked = refuse_early(data, self._bounds, self._checked, self._searched)
        self._searched = max(0, len(data) - 3)
        if self.end_of_input:
            self._client(Step.END_OF_INPUT)

    def _take_body(self) -> EndOfRequest | None:
        frame, sink = self._framing, self.sink
        assert frame is not None
        if self.buffer:
            assert sink is not None
            self.wants_continue = False
            end = frame.take(self.buffer, 0, sink)
            self.buffer = self.buffer[end:]
        if not frame.done:
            if self.end_of_input:
                self._client(Step.END_OF_INPUT)
            return None
        self._framing = self.sink = None
        self._client(Step.ENDED)
        if self.server is _DONE:
            self.client = self.server = _IDLE  # the answer was complete before the request
        return EndOfRequest(frame.trailers)

    def _client(self, step: Step) -> None:
        self.client = after(CLIENT, self.client, step)

    # --- the server's side -----------------------------------------------------------------------

    def answer_begun(self) -> None:
        """Record that the head of the final answer is made."""
        self.server = after(SERVER, self.server, Step.BEGUN)

    def answer_ended(self, keep: bool) -> None:
        """Record that an answer is complete. ``keep``: another request may follow."""
        if self.client is _DONE and (self.server is _HEAD or self.server is _BODY):
            # The common case: both tables in one step.
            if keep:
                self.client = self.server = _IDLE
            else:
                self._leave_unread()
                self.client = self.server = _MUST_CLOSE
            return
        self.server = after(SERVER, self.server, Step.ENDED if keep else Step.LAST)
        if not keep:
            self._end(Step.LAST)

    def refused(self) -> None:
        """Record an error answer of the server's own; it is the last answer."""
        self.server = after(SERVER, self.server, Step.REFUSED)
        self._end(Step.REFUSED)

    def aborted(self) -> None:
        """Record that the connection is lost, or is cut off."""
        self.client = self.server = _CLOSED
        self.buffer = b""
        self._framing = self.sink = None

    def upgrade(self) -> bytes:
        """Give the connection to another protocol; return the input behind the head."""
        self._client(Step.UPGRADE)
        self.server = after(SERVER, self.server, Step.UPGRADE)
        rest, self.buffer = self.buffer, b""
        return rest

    def _end(self, step: Step) -> None:
        self._leave_unread()
        self._client(step)

    def _leave_unread(self) -> None:
        # A client that announced the end sends nothing more; any other may have sent a further request.
        parsed = self.parsed
        announced = parsed is not None and not parsed.head.keep_alive and self.client is _DONE
        if not self.end_of_input and (self.buffer or not announced):
            self.unread = True
        self.buffer = b""

    # --- queries ---------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Return whether nothing of a request has arrived since the last answer."""
        return self.client is _IDLE and not self.buffer

    @property
    def incomplete(self) -> bool:
        """Return whether a part of a request has arrived, and the rest has not, or will not."""
        if self.client is _CLOSED:
            return bool(self.buffer) or self.server is _HEAD
        return self.client is _HEAD or self.client is _BODY

    @property
    def ended(self) -> bool:
        """Return whether no further request will be returned."""
        return self.client is _MUST_CLOSE or self.client is _CLOSED

    @property
    def expected(self) -> int:
        """Bytes of the current body, or chunk, that are announced and missing."""
        return self._framing.rest if self._framing is not None else 0

    @property
    def received(self) -> int:
        """Bytes of the current body that have arrived."""
        return self._framing.received if self._framing is not None else 0


__all__ = ["Bounds", "EndOfRequest", "HttpEngine", "RequestError", "RequestHead", "State"]
