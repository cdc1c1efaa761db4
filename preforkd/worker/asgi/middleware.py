"""What surrounds an ASGI application: slot counters, health paths, the proxy's word, the access log.

All of it reads the scope and passes on what the application sends.
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
"""Calls of one task that are described."""


class RunningRequest(Protocol):
    """A request that runs."""

    scope: Any


class RequestTracker:
    """Tells the slot which requests run. ``probes``: the paths of our own health, which are not counted."""

    def __init__(self, acceptor: Acceptor, probes: dict[str, bool]) -> None:
        self._acceptor = acceptor
        self._slot_writer = acceptor.slot_writer
        self._probes = probes
        self._running: dict[RunningRequest, int] = {}
        """When each request began, the oldest first."""

    def leaving(self) -> bool:
        """Tell whether the worker is to leave."""
        return self._acceptor.retiring

    def is_probe(self, scope: Any) -> bool:
        """Tell whether a request is not the application's."""
        return (
            bool(self._probes)
            and scope["path"] in self._probes
            and scope["method"] in {"GET", "HEAD"}
        )

    def running(self) -> list[str]:
        """Return method and path of the requests that run, the oldest first."""
        scopes = [request.scope for request in self._running]
        return [f"{scope['method']} {scope['path']!r}" for scope in scopes]

    def begin(self, request: RunningRequest) -> None:
        """Let a request run."""
        self._running[request] = since = time.monotonic_ns()
        if len(self._running) == 1:
            self._slot_writer.set_busy(since)

    def end(self, request: RunningRequest) -> None:
        """Count a request that has run."""
        del self._running[request]
        self.count()

    def count(self) -> None:
        """Count what has ended: a WebSocket too, which may stay for days, and is no request that is late."""
        self._slot_writer.request_done()
        for since in self._running.values():
            self._slot_writer.set_busy(since)
            break


def describe_loop(loop: asyncio.AbstractEventLoop, tracker: RequestTracker) -> Iterator[str]:
    """Yield lines on what the loop is at: each request, and each task with where it waits."""
    for request in tracker.running():
        yield f"Request {request}\n"
    yield from describe_tasks(asyncio.all_tasks(loop))


def describe_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> Iterator[str]:
    """Yield lines on where each of these tasks waits."""
    for task in tasks:
        yield f"Task {task.get_name()} (most recent call first):\n"
        yield from reversed(list(_awaits(task.get_coro())))


def _awaits(coroutine: Any) -> Iterator[str]:
    # A task that waits has no stack but this chain, from the outermost call to the innermost.
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
    """An application, as its requests and as its WebSockets and lifespan reach it."""

    requests: Application
    others: Application
    tracker: RequestTracker
    log: AccessLog | None


def wrap_application(
    application: Application, acceptor: Acceptor, settings: Settings, trust: forwarded.Trust
) -> WrappedApplication:
    """Return the application with what the settings put around it. Raises SystemFailure."""
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
    """Counts what is not counted with its request: WebSockets."""

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
    """Answers for our own health; ``probes``: path, and whether it is about readiness."""

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
    """Believes a trusted proxy about the client, and hides from the application what others claim."""

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
    """Has requests logged when they have ended, and logs WebSockets."""

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
    """Log this, to be written in the loop's next turn."""
    if not log.pending:
        asyncio.get_running_loop().call_soon(log.flush)
    log.log(entry)


def answered(scope: Any, status: int, length: int, seconds: float) -> CompletedRequest:
    """Return what the log says of a scope."""
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
