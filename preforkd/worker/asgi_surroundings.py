"""What surrounds an ASGI application: slot counters, health paths, the proxy's word, the access log.

All of it reads the scope and passes on what the application sends.
"""

import time
from collections.abc import Callable
from typing import Any

from preforkd.config.settings import Settings
from preforkd.http import proxy
from preforkd.http.head import Head
from preforkd.ipc.slots import SlotWriter
from preforkd.worker.access import Answered, open_access_log
from preforkd.worker.gate import Gate

Application = Callable[[Any, Any, Any], Any]


def around(
    application: Application, gate: Gate, settings: Settings, trust: proxy.Trust
) -> Application:
    """Return the application with what the settings put around it. Raises SystemFailure."""
    application = _Counted(application, gate)
    if (log := open_access_log(settings.access_log)) is not None:
        application = _Logged(application, log)
    probes = {settings.http.healthy: False, settings.http.ready: True}
    probes.pop("", None)
    if probes:
        application = _Probed(application, gate, probes)
    if settings.proxy.headers != "off":
        application = _BehindProxy(application, settings.proxy.headers, trust)
    return application


class _Counted:
    """Tells the slot what runs; a WebSocket, which may stay for days, is no request that is late."""

    def __init__(self, application: Application, gate: Gate) -> None:
        self._application = application
        self._gate = gate
        self._running: dict[int, int] = {}
        """When each request began, the oldest first."""
        self._number = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._application(scope, receive, send)
            return
        board = self._gate.board
        self._number = number = self._number + 1
        if kind == "http":
            self._running[number] = time.monotonic_ns()
            if len(self._running) == 1:
                board.busy()
        try:
            await self._application(scope, receive, self._closing(send))
        finally:
            self._running.pop(number, None)
            self._done(board)

    def _done(self, board: SlotWriter) -> None:
        board.idle()
        for since in self._running.values():
            board.busy(since)
            break

    def _closing(self, send: Any) -> Any:
        async def closing(message: Any) -> None:
            # A client with a kept connection learns here that the worker leaves, instead of by a
            # reset.
            if self._gate.retiring and message["type"] == "http.response.start":
                message = dict(message)
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        return closing


class _Probed:
    """Answers for our own health; ``probes``: path, and whether it is about readiness."""

    def __init__(self, application: Application, gate: Gate, probes: dict[str, bool]) -> None:
        self._application = application
        self._gate = gate
        self._probes = probes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asks = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}
        if not asks or scope["path"] not in self._probes:
            await self._application(scope, receive, send)
            return
        gate = self._gate
        leaving = self._probes[scope["path"]] and (gate.retiring or gate.noticed)
        status, body = (503, b"leaving\n") if leaving else (200, b"ok\n")
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        if gate.retiring:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _BehindProxy:
    """Believes a trusted proxy about the client, and hides from the application what others claim."""

    def __init__(self, application: Application, style: str, trust: proxy.Trust) -> None:
        self._application = application
        self._style = style
        self._trust = trust

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            scope = self._seen_through(scope)
        await self._application(scope, receive, send)

    def _seen_through(self, scope: Any) -> Any:
        peer = scope.get("client")
        head = _head(scope)
        if not self._trust.trusts(peer[0] if peer else ""):
            return {**scope, "headers": list(proxy.without_forwarding(head))}
        origin = proxy.forwarded(head, self._style, self._trust)
        found: dict[str, Any] = {}
        if origin.address is not None:
            found["client"] = (origin.address, 0)
        if origin.scheme is not None:
            secure = origin.scheme == "https"
            plain, sealed = ("ws", "wss") if scope["type"] == "websocket" else ("http", "https")
            found["scheme"] = sealed if secure else plain
        return {**scope, **found}


class _Logged:
    """Writes the access log."""

    def __init__(self, application: Application, log: Callable[[Answered], None]) -> None:
        self._application = application
        self._log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        status, length, begun = 500, 0, time.monotonic()

        async def counting(message: Any) -> None:
            nonlocal status, length
            await send(message)
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            elif kind == "http.response.body":
                length += len(message.get("body", b""))
            elif kind == "websocket.accept":
                status = 101
            elif kind == "websocket.close" and status == 500:
                status = 403

        try:
            await self._application(scope, receive, counting)
        finally:
            client = scope.get("client")
            seconds = time.monotonic() - begun
            remote = client[0] if client else ""
            self._log(Answered(remote, _head(scope), status, length, seconds))


def _head(scope: Any) -> Head:
    query = scope["query_string"]
    path = scope.get("raw_path") or scope["path"].encode()
    return Head(
        method=scope.get("method", "GET"),
        target=path + b"?" + query if query else path,
        version=scope.get("http_version", "1.1"),
        headers=tuple(scope["headers"]),
        keep_alive=True,
        length=0,
        expects_continue=False,
    )
