"""The end of an ASGI worker: idle connections are closed, and running requests get the time that is left."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from preforkd.worker.asgi.shared import Shared
from preforkd.worker.asgi.tracker import describe_tasks, described

logger = logging.getLogger("preforkd.worker")

_CANCEL_TIME = 5.0
"""Seconds before the end of the drain at which running requests are cancelled; at most a quarter of it."""
_LINGER_SHARE = 0.8
"""The part of the time before that for which idle connections and WebSockets are kept."""
_LOGGED_REQUESTS = 5
"""Cancelled requests that are named in the log."""


class Drain:
    """The drain of the connections in ``shared``, and of ``openings``, which do not speak HTTP yet."""

    def __init__(self, shared: Shared, openings: set[Any], timeout: float) -> None:
        self._shared = shared
        self._openings = openings
        self._timeout = timeout
        self._changed = asyncio.Event()

    def on_change(self) -> None:
        """Look again whether all connections have ended."""
        self._changed.set()

    async def run(self) -> None:
        """Return when all connections and requests have ended; ``timeouts.drain`` bounds it.

        Idle connections are closed after the linger time. Requests that never end (server-sent events, a long
        poll) receive http.disconnect at half of the time before they are cancelled, so that the lifespan's
        shutdown always runs.
        """
        acceptor = self._shared.acceptor
        ordered = acceptor.drain_timeout
        timeout = self._timeout if ordered is None else ordered
        cancel_time = min(_CANCEL_TIME, timeout / 4)
        before = timeout - cancel_time
        announce = self._shared.loop.call_later(
            max(min(acceptor.linger, before), before - cancel_time), self._announce
        )
        try:
            if not await _within(
                before, self._finish(min(acceptor.linger, _LINGER_SHARE * before))
            ):
                await self._cancel(cancel_time)
        finally:
            announce.cancel()

    def _announce(self) -> None:
        for request in self._shared.tracker.running():
            request.end_of_input()

    async def _finish(self, linger: float) -> None:
        await self._until(self._openings)
        await _within(linger, self._until(self._shared.connections))
        for connection in list(self._shared.connections):
            connection.shutdown()
        await self._until(self._shared.connections)
        while tasks := self._tasks():
            await asyncio.wait(tasks)

    async def _until(self, things: set[Any]) -> None:
        while things:
            self._changed.clear()
            await self._changed.wait()

    def _tasks(self) -> list["asyncio.Task[Any]"]:
        return [
            *(request.task for request in self._shared.tracker.running()),
            *self._shared.websocket_tasks,
        ]

    async def _cancel(self, cancel_time: float) -> None:
        requests = self._shared.tracker.running()
        self._announce()  # which marks their cancellation as expected
        tasks = self._tasks()
        if tasks:
            logger.warning(
                "%d requests are still running %g s before the end of timeouts.drain; cancelled%s\n%s",
                len(tasks),
                cancel_time,
                "".join(f"; {described(request)}" for request in requests[:_LOGGED_REQUESTS]),
                "".join(describe_tasks(tasks[:_LOGGED_REQUESTS])).rstrip(),
            )
        for opening in list(self._openings):
            opening.cancel()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=cancel_time / 2)
        for connection in list(self._shared.connections):
            connection.transport.abort()
        await _within(cancel_time / 4, self._until(self._shared.connections))


async def _within(seconds: float, awaitable: Awaitable[None]) -> bool:
    """Wait for this; return whether it ended in time."""
    try:
        async with asyncio.timeout(seconds):
            await awaitable
    except TimeoutError:
        return False
    return True
