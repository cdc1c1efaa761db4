"""The lifespan of an ASGI application: startup, shutdown, and the state that its requests share."""

import asyncio
import logging
from typing import Any

from preforkd.errors import ApplicationError

logger = logging.getLogger("preforkd.app")

_ASGI = {"version": "3.0", "spec_version": "2.0"}


class Lifespan:
    """Runs the application once for the life of the worker. ASGI, Lifespan Protocol 2.0.

    An application that raises before it has answered the startup does not support the protocol, and is
    served without it.
    """

    def __init__(self, application: Any) -> None:
        self.state: dict[str, Any] = {}
        """What the application has stored for its requests; each gets a shallow copy."""
        self._application = application
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._answer: asyncio.Future[dict[str, str]] | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Run the startup. Raises ApplicationError when it fails."""
        self._task = asyncio.ensure_future(self._run())
        answer = await self._ask("startup")
        if answer is None:
            if not self._task.cancelled() and (error := self._task.exception()) is not None:
                logger.debug("the application does not support the lifespan protocol: %r", error)
            self._task = None
        elif answer["type"] != "lifespan.startup.complete":
            if message := answer.get("message"):
                logger.error("%s", message)  # the application's traceback, mostly
            raise ApplicationError(
                "the application's lifespan startup failed",
                hint="the application's traceback is in the log, just above",
            )

    async def shutdown(self) -> None:
        """Run the shutdown; a failure is logged."""
        if self._task is None:
            return
        answer = await self._ask("shutdown")
        if answer is None and not self._task.cancelled() and (error := self._task.exception()):
            logger.error("the application's lifespan shutdown failed", exc_info=error)
        elif answer is not None and answer["type"] != "lifespan.shutdown.complete":
            message = answer.get("message", "")
            logger.error("the application's lifespan shutdown failed: %s", message)

    async def _ask(self, what: str) -> dict[str, str] | None:
        """Send an event and return the application's answer; None: it has ended without one."""
        assert self._task is not None
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": f"lifespan.{what}"})
        await asyncio.wait((answer, self._task), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": _ASGI, "state": self.state}
        await self._application(scope, self._events.get, self._send)

    async def _send(self, message: dict[str, str]) -> None:
        if not message["type"].startswith("lifespan."):
            raise RuntimeError(f"{message['type']} is not a message of the lifespan protocol")
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)
