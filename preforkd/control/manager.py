"""The Varlink interface ``io.preforkd.Manager``, one instance for each client.

https://varlink.org; the interface description is made from these annotations, so method and
parameter names are those of the wire.
"""

import logging
from dataclasses import replace
from typing import Protocol, TypedDict

from asyncvarlink import TypedVarlinkErrorReply, VarlinkInterface, varlinkmethod

from preforkd.control.access import Peer, may_command
from preforkd.control.view import MemoryView, ReloadAnswer, ServiceView

logger = logging.getLogger("preforkd.master")

INTERFACE = "io.preforkd.Manager"


class Backend(Protocol):
    """The master, as a client sees it."""

    def view(self) -> ServiceView:
        """Return all there is to see."""

    async def memory(self) -> MemoryView:
        """Read the memory of all processes; milliseconds each, beside the loop."""

    async def reload(self, fresh: bool) -> ReloadAnswer:
        """Reload; return when the new generation serves, or the reload has failed."""

    def stop(self, quick: bool) -> None:
        """Begin to stop."""

    async def refork(self) -> str:
        """Fork the zygote anew from a warm worker; return what was achieved, or raise ReforkFailed."""

    def scale(self, size: int | None, by: int) -> int:
        """Change the size: by so many, or (0) to this one, None being that of the settings; return it."""


class ReloadFailed(TypedVarlinkErrorReply, interface=INTERFACE):
    """The reload failed, and what served serves on."""

    class Parameters:
        """Who has to act, why, the evidence, and what to do."""

        blame: str
        reason: str
        detail: str
        hint: str


class ReforkFailed(TypedVarlinkErrorReply, interface=INTERFACE):
    """No zygote was forked from a worker, and nothing that serves was touched."""

    class Parameters:
        """Who has to act, why, the evidence, and what to do."""

        blame: str
        reason: str
        detail: str
        hint: str


class NotAllowed(TypedVarlinkErrorReply, interface=INTERFACE):
    """The client may look, and give no commands."""

    class Parameters:
        """Who may."""

        reason: str


class Done(TypedDict):
    """The answer to a reload that succeeded."""

    generation: int
    message: str
    live: list[str]
    restart: list[str]


class Manager(VarlinkInterface, name=INTERFACE):
    """Look at a preforkd service, reload it, stop it."""

    errors = (ReloadFailed, ReforkFailed, NotAllowed)

    def __init__(self, backend: Backend, peer: Peer, group: str) -> None:
        self._backend = backend
        self._peer = peer
        self._group = group

    @varlinkmethod(return_parameter="service")
    async def GetStatus(self, *, memory: bool | None = None) -> ServiceView:  # noqa: N802 - of the wire
        """Return everything there is to see.

        memory: what each process takes, too, which costs milliseconds for each.
        """
        if not memory:
            return self._backend.view()
        return replace(self._backend.view(), memory=await self._backend.memory())

    @varlinkmethod(return_parameter="memory")
    async def GetMemory(self) -> MemoryView:  # noqa: N802
        """Return what each process takes."""
        return await self._backend.memory()

    @varlinkmethod
    async def Reload(self, *, fresh: bool) -> Done:  # noqa: N802
        """Read the configuration again and return when it is in force.

        fresh: start new workers even if nothing changed.
        """
        self._demand("Reload")
        answer = await self._backend.reload(fresh)
        if not answer.ok:
            raise ReloadFailed(
                blame=answer.blame or "internal",
                reason=answer.message,
                detail=answer.detail,
                hint=answer.hint,
            )
        return Done(
            generation=answer.generation or 0,
            message=answer.message,
            live=answer.live,
            restart=answer.restart,
        )

    @varlinkmethod
    def Stop(self, *, quick: bool) -> None:  # noqa: N802
        """Begin to stop; quick: without letting requests finish."""
        self._demand("Stop")
        self._backend.stop(quick)

    @varlinkmethod(return_parameter="message")
    async def Refork(self) -> str:  # noqa: N802
        """Fork the next zygote from a warm worker; return when a first worker of its own serves."""
        self._demand("Refork")
        return await self._backend.refork()

    @varlinkmethod(return_parameter="size")
    def Scale(self, *, size: int | None = None, by: int | None = None) -> int:  # noqa: N802
        """Change the number of workers; return the number that there are to be.

        size: so many, until the settings change. by: so many more, or fewer. Neither: what the settings say.
        """
        self._demand("Scale")
        return self._backend.scale(size, by or 0)

    def _demand(self, command: str) -> None:
        peer = self._peer
        if not may_command(peer, self._group):
            logger.warning("%s refused to pid %d of user %d", command, peer.pid, peer.uid)
            group = f", or a member of {self._group}" if self._group else ""
            raise NotAllowed(
                reason=f"{command} is for root and the user that preforkd runs as{group}"
            )
        logger.info("%s by pid %d of user %d", command, peer.pid, peer.uid)
