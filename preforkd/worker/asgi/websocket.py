"""A WebSocket and its application: the WebSocket messages of ASGI 3.

`start_websocket` takes a connection over from the HTTP protocol, with its request complete and unanswered.
The application accepts the handshake, rejects it, or answers it by an HTTP response; `State` has what it may send
when. What happens on the connection then is in `preforkd.worker.asgi.websocket_connection`.

The application gets websocket.disconnect at the end, whichever side caused it. What it sends afterwards raises
OSError, unless it has closed the WebSocket itself: then it is an error of its own.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from preforkd.http import upgrade
from preforkd.http.engine import HttpEngine
from preforkd.http.head import RequestHead
from preforkd.http.response import ResponseWriter
from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST, CompletedRequest
from preforkd.worker.asgi import frames
from preforkd.worker.asgi.cycle import ClientDisconnectedError
from preforkd.worker.asgi.frames import FrameCodec
from preforkd.worker.asgi.shared import Shared
from preforkd.worker.asgi.websocket_connection import Message, State, WebSocketConnection

logger = logging.getLogger("preforkd.app")

_MAX_EARLY = 64 * 1024
"""Bytes behind the handshake that are kept until it is answered."""


def start_websocket(
    shared: Shared,
    transport: Any,
    *,
    scope: dict[str, Any],
    head: RequestHead,
    request: upgrade.WebSocketRequest,
    engine: HttpEngine[Any],
    remote: str,
) -> "WebSocket":
    """Let the application answer the handshake of a connection, in a task; return the connection's new protocol.

    It is added to the connections and the tasks of ``shared``. ``scope`` is that of the HTTP request, and is
    changed. ``head`` and ``remote`` are for the access log. The client of ``engine`` is DONE, its server HEAD.
    """
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = {"http": "ws", "https": "wss"}[scope["scheme"]]
    scope["subprotocols"] = list(request.subprotocols)
    extensions = scope.get("extensions", {})
    scope["extensions"] = {"websocket.http.response": {}} | {
        name: value for name, value in extensions.items() if name == "tls"
    }
    websocket = WebSocket(shared, transport, scope, request, engine)
    transport.set_protocol(websocket)
    websocket.start(head, remote)
    shared.add(websocket)
    shared.websocket_tasks.add(websocket.task)
    websocket.task.add_done_callback(shared.websocket_tasks.discard)
    return websocket


class WebSocket(WebSocketConnection):
    """One WebSocket: the application's receive and send."""

    __slots__ = (
        "_early",
        "_engine",
        "_request",
        "_response",
        "_scope",
        "_shared",
        "_status",
        "task",
    )

    task: "asyncio.Task[None]"
    """The application."""

    def __init__(
        self,
        shared: Shared,
        transport: Any,
        scope: dict[str, Any],
        request: upgrade.WebSocketRequest,
        engine: HttpEngine[Any],
    ) -> None:
        super().__init__(shared.loop, transport, shared.websocket, shared.limits)
        self._shared = shared
        self._scope = scope
        self._request = request
        self._engine = engine
        self._early = 0
        """Bytes that have arrived before the accept."""
        self._status = CLIENT_CLOSED_REQUEST
        """Of the answer to the handshake, for the access log."""
        self._response = ResponseWriter(
            engine, shared.renderer, head_only=False, http11=True, keep=False
        )

    def start(self, head: RequestHead, remote: str) -> None:
        """Start the application."""
        self.task = self._loop.create_task(self._run(head, remote))

    # --- the application -------------------------------------------------------------------------

    async def _run(self, head: RequestHead, remote: str) -> None:
        shared, begun = self._shared, time.monotonic()
        try:
            await shared.application(self._scope, self.receive, self.send)
        except BaseException as error:
            self._fail_application(head, error)
        else:
            if self._state is State.HANDSHAKE or self._state is State.RESPONSE:
                target = head.target.decode("latin-1")
                logger.error("the application has not answered WebSocket %s completely", target)
            self._end(frames.NORMAL)
        finally:
            shared.tracker.count()
            if shared.log is not None:
                seconds, length = time.monotonic() - begun, self._response.length
                shared.write_log(CompletedRequest(remote, head, self._status, length, seconds))

    def _fail_application(self, head: RequestHead, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError) and self.task.cancelling():
            self._end(frames.RESTART)  # by the drain, which logs it
            return
        if isinstance(error, SystemExit):
            # The application requests the exit of this process; other workers continue.
            self._shared.acceptor.retire()
            self._shared.acceptor.wake()
        if not (self._state is State.GONE and _is_disconnect(error)):
            target = head.target.decode("latin-1")
            logger.error("the application failed on WebSocket %s", target, exc_info=error)
        self._end(frames.INTERNAL_ERROR)

    async def send(self, message: Message) -> None:
        """Send a message. Raises OSError when the client is gone, RuntimeError when it is not the time for it."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self._state is State.OPEN and message["type"] == "websocket.send":
            codec = self._frames
            assert codec is not None
            text = message.get("text")
            data = codec.binary(message["bytes"]) if text is None else codec.text(text)
            self.transport.write(data)
            return
        act = _ACTIONS.get((self._state, message["type"]))
        if act is not None:
            act(self, message)
        elif self._state is not State.GONE:
            raise RuntimeError(
                f"unexpected ASGI message {message['type']!r}: the WebSocket is {self._state.value}"
            )
        elif message["type"] != "websocket.close":
            raise ClientDisconnectedError(f"the WebSocket is {self._state.value}")

    def _accept(self, message: Message) -> None:
        settings = self._settings
        offered = self._request.extensions if settings.compression else ()
        extension, deflate = frames.negotiate(offered)
        own = upgrade.accept_headers(self._request, message.get("subprotocol"), extension)
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        if any(name.lower().startswith(b"sec-websocket-") for name, _ in headers):
            raise ValueError(
                "a header of the WebSocket handshake is among those of the application"
            )
        head = self._shared.renderer.switching(own, headers)
        rest = self._engine.upgrade()
        self.transport.write(head)
        self._status = 101
        self._open(FrameCodec(settings.max_size, deflate), rest)

    def _reject(self, _message: Message) -> None:
        self._refuse("403 Forbidden", "the application has rejected the WebSocket")

    def _start_response(self, message: Message) -> None:
        headers = message.get("headers", ())
        self._response.plan = self._shared.renderer.plan_of(message["status"], headers)
        self._state = State.RESPONSE

    def _send_response(self, message: Message) -> None:
        response = self._response
        self._status = response.code
        body = message.get("body", b"")
        if message.get("more_body", False):
            self.transport.write(response.part(body))
            return
        if response.head_sent:
            self.transport.write(response.part(body) + response.end())
        else:
            self.transport.write(b"".join(response.whole(body)))
        self._state = State.CLOSED
        self._finish(frames.ABNORMAL, "")
        self.transport.close()

    def _close(self, message: Message) -> None:
        code, reason = message.get("code", frames.NORMAL), message.get("reason") or ""
        self._send_close(State.CLOSED, code, reason)

    # --- the end ---------------------------------------------------------------------------------

    def _end(self, code: int) -> None:
        """Answer what the application, which has ended, has left unanswered."""
        if self._state is State.OPEN:
            self._send_close(State.CLOSED, code, "")
        elif self._state is State.RESPONSE and self._response.head_sent:
            self.transport.abort()  # the client must not take it for complete
        elif self._state is State.HANDSHAKE or self._state is State.RESPONSE:
            if code == frames.RESTART:
                self._refuse("503 Service Unavailable", "the server is restarting")
            else:
                self._refuse("500 Internal Server Error", "the application failed")

    def shutdown(self) -> None:
        """Close it because the worker retires; a response that has begun is completed."""
        if self._state is State.OPEN:
            self._send_close(State.GONE, frames.RESTART, "")
        elif self._state is State.HANDSHAKE:
            self._end(frames.RESTART)
            self._state = State.GONE

    def _refuse(self, status: str, reason: str) -> None:
        self._engine.refused()
        self._status = int(status[:3])
        self.transport.write(self._shared.renderer.plain_error(status, reason))
        self._state = State.CLOSED
        self._finish(frames.ABNORMAL, "")
        self.transport.close()

    def _early_data(self, data: bytes) -> None:
        self._engine.receive(data)
        self._early += len(data)
        if self._early > _MAX_EARLY:
            self._pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the application and the server know that the client is gone."""
        super().connection_lost(exc)
        self._shared.discard(self)


_ACTIONS: dict[tuple[State, str], Callable[[WebSocket, Message], None]] = {
    (State.HANDSHAKE, "websocket.accept"): WebSocket._accept,
    (State.HANDSHAKE, "websocket.close"): WebSocket._reject,
    (State.HANDSHAKE, "websocket.http.response.start"): WebSocket._start_response,
    (State.RESPONSE, "websocket.http.response.body"): WebSocket._send_response,
    (State.OPEN, "websocket.close"): WebSocket._close,
}
"""What the application's messages do in each state, but for websocket.send."""


def _is_disconnect(error: BaseException | None) -> bool:
    """Return whether an exception is, or came from, a `ClientDisconnectedError`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ClientDisconnectedError):
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(map(_is_disconnect, error.exceptions))
        error = error.__cause__ or error.__context__
    return False
