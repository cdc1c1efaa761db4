"""One ASGI request and its answer: what the application receives and sends. ASGI, HTTP & WebSocket 2.5.

The head of an answer is sent with the first part of its body, as the specification demands: one packet
instead of two, and an application that fails between the two is answered with 500.
"""

import asyncio
import logging
import os
import time
from typing import Any

from preforkd.http.head import RequestError
from preforkd.http.response import LARGE, ResponseWriter, decoded
from preforkd.http.states import State
from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, CompletedRequest
from preforkd.worker.asgi.request_body import MAX_UNREAD, RequestBody
from preforkd.worker.asgi.scope import Message
from preforkd.worker.asgi.shared import Connection
from preforkd.worker.listener_context import CachedHead

logger = logging.getLogger("preforkd.app")

_BLOCK = 256 * 1024
"""Bytes of a file that are read at once."""


class ClientDisconnectedError(OSError):
    """Raised by ``send`` when the connection is lost."""


class Cycle:
    """See the module; the answer belongs to ``protocol`` until it is complete."""

    task: "asyncio.Task[None]"

    def __init__(self, protocol: Connection, cached: CachedHead, *, keep: bool) -> None:
        shared = protocol.shared
        self.cached = cached
        self.replaced: tuple[int, int] | None = None
        """Status and length of an answer of the server's own that was sent instead."""
        self._protocol = protocol
        self._shared = shared
        self._writer = ResponseWriter(
            protocol.engine,
            shared.renderer,
            head_only=cached.head_only,
            http11=cached.http11,
            keep=keep,
        )
        self._disconnected = False
        """Nothing more can be sent."""
        self._ends = False
        """The application receives http.disconnect: its client, or the worker, leaves."""
        self._dropping = False
        """The answer is complete without a body; parts that the application still sends are dropped."""
        self._trailers: list[tuple[bytes, bytes]] | None = None
        """The trailers that the application sends after the body; None: it sends none."""
        self._body = RequestBody(complete=cached.head.length == 0)
        self._event: asyncio.Event | None = None
        """Set when `receive` may have something to return."""
        self._begun = shared.tracker.begin(self)

    # --- the protocol's side ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Take a part of the body, as the sink of the engine."""
        if not self._writer.complete:
            self._body.add(data)
            if self._body.unread > MAX_UNREAD:
                self._protocol.pause_reading()
            self._wake()

    def end_of_body(self) -> None:
        """Take the end of the body. Its trailers are dropped: ASGI has no place for them."""
        self._body.complete = True
        self._wake()

    def end_of_input(self) -> None:
        """Let the application receive http.disconnect, behind the body; what it sends is still sent."""
        self._ends = True
        self._wake()

    def disconnect(self) -> None:
        """Let the application receive http.disconnect, and fail when it sends."""
        self._disconnected = True
        self._wake()

    def answer_overdue(self) -> None:
        """Answer 504: the master ends this process next."""
        if not (self._writer.head_sent or self._disconnected):
            self._protocol.refuse(
                RequestError("504 Gateway Timeout", "the application took too long")
            )
        if self._shared.log is not None:
            self._shared.log.log(self._entry())
            self._shared.log.flush()

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()

    # --- the application's side ------------------------------------------------------------------

    async def run(self, scope: Message) -> None:
        """Call the application; its exceptions are answered and logged."""
        shared = self._shared
        try:
            await shared.application(scope, self.receive, self.send)
        except BaseException as error:
            self._fail(error)
        else:
            if not self._writer.complete:
                self._end_incomplete()
        finally:
            shared.tracker.end(self)
            if shared.log is not None:
                self._protocol.log(self._entry())

    async def receive(self) -> Message:
        """Return a part of the body, or http.disconnect when there will be no more."""
        while not (self._disconnected or self._writer.complete):
            body = self._body
            if body.ready:
                message = body.take()
                self._protocol.resume_reading()
                return message
            if not body.received:
                self._protocol.request_body()
            if self._ends:
                break
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer.

        Raises ClientDisconnectedError when the connection is lost, RuntimeError for a message that is not
        allowed at this point, ValueError for an invalid header.
        """
        protocol = self._protocol
        if protocol.write_paused and not self._disconnected:
            await protocol.drain()
        if self._disconnected:
            raise ClientDisconnectedError("the client has disconnected")
        if self._dropping:
            await asyncio.sleep(0)  # an endless sender must not stop the loop
            return
        kind, writer = message["type"], self._writer
        if writer.complete:
            raise RuntimeError(f"{kind} was sent after the answer was complete")
        if kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.early_hint" and not writer.head_sent:
            self._send_hints(message)
        elif writer.plan is None:
            raise RuntimeError(f"{kind} was sent before http.response.start")
        elif kind == "http.response.body":
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.pathsend" and not writer.head_sent:
            await self._send_file(message["path"])
        elif kind == "http.response.trailers" and self._trailers is not None:
            self._trailers.extend(message.get("headers", ()))
            if not message.get("more_trailers", False):
                self._send_last(b"")
        else:
            raise RuntimeError(f"{kind} is not allowed here")

    def _start(self, message: Message) -> None:
        writer = self._writer
        if writer.plan is not None:
            raise RuntimeError("http.response.start was sent twice")
        writer.plan = self._shared.renderer.plan_of(message["status"], message.get("headers", ()))
        if message.get("trailers", False):
            self._trailers = []

    def _send_hints(self, message: Message) -> None:
        if self.cached.http11:  # RFC 9110, section 15.2: not for clients of HTTP/1.0
            links = [("Link", bytes(link).decode("latin-1")) for link in message["links"]]
            self._protocol.write(self._shared.renderer.early_hints(links))

    def _send_body(self, body: Any, *, more: bool) -> None:
        writer = self._writer
        if body.__class__ is not bytes:
            body = bytes(memoryview(body))
        if not writer.head_sent:
            self._decide_keep(last=not more)
            if not more and self._trailers is None:
                self._check_length(len(body), last=True)
                head, body = writer.whole(body)
                if not writer.keep:
                    self._protocol.write_last(head + body)
                elif len(body) < LARGE:
                    self._protocol.write(head + body)
                else:
                    self._protocol.write(head)
                    self._protocol.write(body)
                self._complete()
                return
        if not writer.over:
            self._check_length(len(body), last=not more)
        data = writer.part(body)
        if more and writer.over:
            self._dropping = True  # the body may be endless
            more = False
        if more or (self._trailers is not None and not self._dropping):
            self._protocol.write(data)
        else:
            self._send_last(data)

    def _decide_keep(self, *, last: bool) -> None:
        """Decide whether the connection is kept, as the head of the answer informs the client of it."""
        writer, engine = self._writer, self._protocol.engine
        if self._shared.acceptor.retiring:
            writer.keep = False
        elif last and engine.client is State.BODY:
            # The rest of the body is discarded, unless it is large, or may not come at all.
            writer.keep = (
                writer.keep and engine.expected <= MAX_UNREAD and not engine.wants_continue
            )

    def _check_length(self, size: int, *, last: bool) -> None:
        writer = self._writer
        plan = writer.plan
        if plan is None or plan.length is None or plan.bodiless or self.cached.head_only:
            return
        rest = plan.length - writer.length - size
        if rest < 0:
            raise RuntimeError("the body is longer than its Content-Length")
        if rest and last:
            raise RuntimeError("the body is shorter than its Content-Length")

    def _send_last(self, data: bytes) -> None:
        trailers = None
        if self._trailers and self._takes_trailers():
            trailers = decoded(self._trailers)
        data += self._writer.end(trailers)
        if data:
            self._protocol.write(data)
        self._complete()

    def _takes_trailers(self) -> bool:
        """Return whether the client announced that it evaluates trailers, RFC 9110, section 10.1.4."""
        return any(
            name == b"te" and b"trailers" in value.lower()
            for name, value in self.cached.head.headers
        )

    async def _send_file(self, path: Any) -> None:
        """Send a file as the whole body. Raises OSError if it cannot be opened."""
        writer, protocol = self._writer, self._protocol
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._decide_keep(last=True)
            data = writer.begin(os.fstat(descriptor).st_size)
            while not writer.over and (block := os.read(descriptor, _BLOCK)):
                protocol.write(data + writer.part(block))
                data = b""
                await protocol.drain()
                if self._disconnected:
                    raise ClientDisconnectedError("the client has disconnected")
        finally:
            os.close(descriptor)
        self._send_last(data)

    def _complete(self) -> None:
        self._wake()
        self._protocol.answered(self, keep=self._writer.keep)

    # --- the end ---------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        writer = self._writer
        if isinstance(error, SystemExit):
            # The application requests the exit of this process; other workers continue.
            self._shared.acceptor.retire()
            self._shared.acceptor.wake()
        if self._is_expected(error):
            logger.debug("a request ended: %r", error)
        else:
            head = self.cached.head
            when = ", after its answer" if writer.complete else ""
            target = head.target.decode("latin-1")
            logger.error(
                "the application failed on %s %s%s", head.method, target, when, exc_info=error
            )
        self._end_failed()

    def _is_expected(self, error: BaseException) -> bool:
        """Return whether the cause is the end of the connection, or of the drain."""
        if isinstance(error, asyncio.CancelledError):
            return self._disconnected or self._ends
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ClientDisconnectedError):
            cause = cause.__cause__ or cause.__context__
        return cause is not None

    def _end_incomplete(self) -> None:
        if not (self._disconnected or self._ends):
            what = "completing its" if self._writer.head_sent else "an"
            head = self.cached.head
            target = head.target.decode("latin-1")
            logger.error(
                "the application returned without %s answer to %s %s", what, head.method, target
            )
        self._end_failed()

    def _end_failed(self) -> None:
        if self._writer.complete or self._disconnected:
            return
        if self._writer.head_sent or self._ends:
            self._protocol.cut_off(self)
        else:
            self._protocol.refuse(
                RequestError("500 Internal Server Error", "the application failed")
            )

    def _entry(self) -> CompletedRequest:
        writer = self._writer
        status, length = writer.code if writer.head_sent else CLIENT_CLOSED_REQUEST, writer.length
        if self.replaced is not None:
            status, length = self.replaced
        seconds = (time.monotonic_ns() - self._begun) / 1e9
        remote = self.cached.remote or self._protocol.remote
        return CompletedRequest(remote, self.cached.head, status, length, seconds)
