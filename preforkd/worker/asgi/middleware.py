"""Middleware around an ASGI application: slot counters, probes, forwarded headers, the access log.

All of it reads the scope and passes the application's messages on.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from preforkd.config.settings import Settings
from preforkd.http import forwarded
from preforkd.http.head import RequestHead
from preforkd.logs.access_log import (
    CLIENT_CLOSED_REQUEST,
    AccessLog,
    CompletedRequest,
    open_access_log,
)
from preforkd.worker.acceptor import Acceptor

Application = Callable[[Any, Any, Any], Any]

_MAX_DEPTH = 100
"""Awaited calls of one task that are listed."""


class RunningRequest(Protocol):
    """A running request."""

    scope: Any


class RequestTracker:
    """The running requests, counted in the slot. ``probes``: paths of health checks, which are not counted."""

    def __init__(self, acceptor: Acceptor, probes: dict[str, bool]) -> None:
        self._acceptor = acceptor
        self._slot_writer = acceptor.slot_writer
        self._probes = probes
        self._running: dict[RunningRequest, int] = {}
        """The start of each request, monotonic in ns, the oldest first."""

    def leaving(self) -> bool:
        """Return whether the worker retires."""
        return self._acceptor.retiring

    def is_probe(self, scope: Any) -> bool:
        """Return whether a request is a probe, which the application does not get."""
        return (
            bool(self._probes)
            and scope["path"] in self._probes
            and scope["method"] in {"GET", "HEAD"}
        )

    def running(self) -> list[str]:
        """Return method and path of the running requests, the oldest first."""
        scopes = [request.scope for request in self._running]
        return [f"{scope['method']} {scope['path']!r}" for scope in scopes]

    def begin(self, request: RunningRequest) -> None:
        """Count a request that begins."""
        self._running[request] = since = time.monotonic_ns()
        if len(self._running) == 1:
            self._slot_writer.set_busy(since)

    def end(self, request: RunningRequest) -> None:
        """Count a request that has ended."""
        del self._running[request]
        self.count()

    def count(self) -> None:
        """Count the end of a request or a WebSocket; the latter may last for days and is never overdue."""
        self._slot_writer.request_done()
        for since in self._running.values():
            self._slot_writer.set_busy(since)
            break


def describe_loop(loop: asyncio.AbstractEventLoop, tracker: RequestTracker) -> Iterator[str]:
    """Yield lines about each running request and each task with its stack."""
    for request in tracker.running():
        yield f"Request {request}\n"
    yield from describe_tasks(asyncio.all_tasks(loop))


def describe_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> Iterator[str]:
    """Yield lines with the stack of each task."""
    for task in tasks:
        yield f"Task {task.get_name()} (most recent call first):\n"
        yield from reversed(list(_awaits(task.get_coro())))


def _awaits(coroutine: Any) -> Iterator[str]:
    # A waiting task has no frames on a stack, only this chain from the outermost call to the innermost.
    for _ in range(_MAX_DEPTH):
        kind = next((one for one in ("cr", "gi", "ag") if hasattr(coroutine, f"{one}_frame")), None)
        if kind is None:
            return
        frame, code = getattr(coroutine, f"{kind}_frame"), getattr(coroutine, f"{kind}_code")
        line = frame.f_lineno if frame is not None else code.co_firstlineno
        yield f'  File "{code.co_filename}", line {line} in {code.co_name}\n'
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


@dataclass(frozen=True, slots=True)
class WrappedApplication:
    """The wrapped application: for its requests, and for its WebSockets and lifespan."""

    requests: Application
    others: Application
    tracker: RequestTracker
    log: AccessLog | None


def wrap_application(
    application: Application, acceptor: Acceptor, settings: Settings, trust: forwarded.Trust
) -> WrappedApplication:
    """Return the application with the middleware that the settings ask for. Raises SystemFailure."""
    log = open_access_log(settings.access_log)
    probes = {settings.http.healthy: False, settings.http.ready: True}
    probes.pop("", None)
    tracker = RequestTracker(acceptor, probes)

    def wrap(application: Application) -> Application:
        if log is not None:
            application = _AccessLogger(application, log)
        if probes:
            application = _ProbeResponder(application, acceptor, probes)
        if settings.proxy.headers != "off":
            application = _ForwardedScope(application, settings.proxy.headers, trust)
        return application

    return WrappedApplication(
        wrap(application), wrap(_WebSocketCounter(application, tracker)), tracker, log
    )


class _WebSocketCounter:
    """Count WebSockets, which are not counted by `Cycle`."""

    def __init__(self, application: Application, tracker: RequestTracker) -> None:
        self._application = application
        self._tracker = tracker

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._application(scope, receive, send)
        finally:
            if scope["type"] == "websocket":
                self._tracker.count()


class _ProbeResponder:
    """Answer probes; ``probes``: path, and whether it asks for readiness."""

    def __init__(
        self, application: Application, acceptor: Acceptor, probes: dict[str, bool]
    ) -> None:
        self._application = application
        self._acceptor = acceptor
        self._probes = probes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asks = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}
        if not asks or scope["path"] not in self._probes:
            await self._application(scope, receive, send)
            return
        acceptor = self._acceptor
        leaving = self._probes[scope["path"]] and (acceptor.retiring or acceptor.drain_announced)
        status, body = (503, b"leaving\n") if leaving else (200, b"ok\n")
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _ForwardedScope:
    """Apply forwarded headers of a trusted proxy, and remove those of any other peer."""

    def __init__(self, application: Application, style: str, trust: forwarded.Trust) -> None:
        self._application = application
        self._style = style
        self._trust = trust

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            scope = self._forwarded_scope(scope)
        await self._application(scope, receive, send)

    def _forwarded_scope(self, scope: Any) -> Any:
        peer = scope.get("client")
        head = _head(scope)
        if not self._trust.trusts(peer[0] if peer else ""):
            return {**scope, "headers": list(forwarded.without_forwarding(head))}
        origin = forwarded.forwarded(head, self._style, self._trust)
        found: dict[str, Any] = {}
        if origin.address is not None:
            found["client"] = (origin.address, 0)
        if origin.scheme is not None:
            secure = origin.scheme == "https"
            plain, sealed = ("ws", "wss") if scope["type"] == "websocket" else ("http", "https")
            found["scheme"] = sealed if secure else plain
        return {**scope, **found}


class _AccessLogger:
    """Log requests by their `Cycle` when they end, and WebSockets here."""

    def __init__(self, application: Application, log: AccessLog) -> None:
        self._application = application
        self._log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        if scope["type"] == "http":
            send.__self__.record = scope, time.monotonic()
        await self._application(scope, receive, send)

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        status, length, begun = CLIENT_CLOSED_REQUEST, 0, time.monotonic()

        async def counting(message: Any) -> None:
            nonlocal status, length
            await send(message)
            kind = message["type"]
            if kind == "websocket.accept":
                status = 101
            elif kind == "websocket.close" and status == CLIENT_CLOSED_REQUEST:
                status = 403
            elif kind == "websocket.http.response.start":
                status = message["status"]
            elif kind == "websocket.http.response.body":
                length += len(message.get("body", b""))

        try:
            await self._application(scope, receive, counting)
        except Exception:
            if status == CLIENT_CLOSED_REQUEST:
                status = 500
            raise
        finally:
            log_soon(self._log, answered(scope, status, length, time.monotonic() - begun))


def log_soon(log: AccessLog, entry: CompletedRequest) -> None:
    """Add an entry to the access log, to be written in the loop's next turn."""
    if not log.pending:
        asyncio.get_running_loop().call_soon(log.flush)
    log.log(entry)


def answered(scope: Any, status: int, length: int, seconds: float) -> CompletedRequest:
    """Return the access log's entry for a scope."""
    client = scope.get("client")
    return CompletedRequest(client[0] if client else "", _head(scope), status, length, seconds)


def _head(scope: Any) -> RequestHead:
    query = scope["query_string"]
    path = scope.get("raw_path") or scope["path"].encode()
    return RequestHead(
        method=scope.get("method", "GET"),
        target=path + b"?" + query if query else path,
        version=scope.get("http_version", "1.1"),
        headers=tuple(scope["headers"]),
        keep_alive=True,
        length=0,
        expects_continue=False,
    )
