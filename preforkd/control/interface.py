"""The Varlink interface ``io.preforkd.Manager``: its methods, and what the master does for each."""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from preforkd.control.path import NAME
from preforkd.control.permissions import Peer, may_command
from preforkd.control.records import MemoryStatus, ReloadAnswer, ServiceStatus, WorkerStatus
from preforkd.control.varlink import Answer, Error, Interface, Method
from preforkd.errors import Failure

logger = logging.getLogger("preforkd.master")

INTERFACE = NAME


class Backend(Protocol):
    """The master, as a client sees it; each ``callback`` is called once, immediately or later."""

    def status(self) -> ServiceStatus:
        """Return the status of the service."""

    def memory(self, callback: Callable[[MemoryStatus], None]) -> None:
        """Read the memory of all processes, which takes milliseconds for each, in a thread."""

    def reload(self, callback: Callable[[ReloadAnswer], None], *, fresh: bool) -> None:
        """Reload; call back when the new generation is serving, or the reload has failed."""

    def stop(self, *, quick: bool) -> None:
        """Begin to stop."""

    def refork(self, callback: Callable[[str | Failure], None]) -> None:
        """Fork a zygote from a warm worker; call back with a message, or the failure."""

    def scale(self, size: int | None) -> int:
        """Set the size of the pool, None for that of the settings; return it."""

    def scale_by(self, step: int) -> int:
        """Change the size of the pool by ``step``; return it."""


# --- the methods, and what they answer -----------------------------------------------------------


class GetStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Return the status of the service.

    memory: with the memory of each process, which takes milliseconds for each.
    """

    memory: bool | None = None


class StatusResult(msgspec.Struct, frozen=True):
    """The answer to GetStatus."""

    service: ServiceStatus


class GetMemory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Return the memory of each process."""


class MemoryResult(msgspec.Struct, frozen=True):
    """The answer to GetMemory."""

    memory: MemoryStatus


class Reload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Read the configuration again and return when it is in force.

    fresh: start new workers even if nothing changed.
    """

    fresh: bool


class ReloadResult(msgspec.Struct, frozen=True):
    """The answer to a reload that succeeded."""

    generation: int
    message: str
    live: list[str]
    restart: list[str]


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Begin to stop; quick: do not let requests finish."""

    quick: bool


class StopResult(msgspec.Struct, frozen=True):
    """The answer to Stop."""


class Refork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fork the next zygote from a warm worker; return when the first worker of that zygote is serving."""


class ReforkResult(msgspec.Struct, frozen=True):
    """The answer to a refork that succeeded."""

    message: str


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Change the number of workers; return the new number.

    size: the number, until the settings change. by: how many more, or fewer if negative. Neither: that of
    the settings.
    """

    size: int | None = None
    by: int | None = None


class ScaleResult(msgspec.Struct, frozen=True):
    """The answer to Scale."""

    size: int


# --- the errors ----------------------------------------------------------------------------------


class _Failed(Error, frozen=True):
    """What has to be fixed, the reason, the evidence, and a hint."""

    interface_name = INTERFACE
    blame: str
    reason: str
    detail: str
    hint: str


class ReloadFailed(_Failed, frozen=True):
    """The reload failed; the current generation keeps serving."""


class ReforkFailed(_Failed, frozen=True):
    """No zygote was forked from a worker; the running workers were not changed."""


class NotAllowed(Error, frozen=True):
    """The client may read, but not command."""

    interface_name = INTERFACE
    reason: str


class Manager:
    """The methods of `INTERFACE` for one client; ``interface`` declares them."""

    def __init__(self, backend: Backend, peer: Peer, group: str) -> None:
        self._backend = backend
        self._peer = peer
        self._group = group
        self.interface = Interface(
            INTERFACE,
            "Inspect a preforkd service, reload it, stop it.",
            (
                Method(GetStatus, StatusResult, self._get_status),
                Method(GetMemory, MemoryResult, self._get_memory),
                Method(Reload, ReloadResult, self._for_commanders(self._reload)),
                Method(Refork, ReforkResult, self._for_commanders(self._refork)),
                Method(Scale, ScaleResult, self._for_commanders(self._scale)),
                Method(Stop, StopResult, self._for_commanders(self._stop)),
            ),
            (ReloadFailed, ReforkFailed, NotAllowed),
        )

    def _for_commanders(
        self, perform: Callable[[Any, Answer], None]
    ) -> Callable[[Any, Answer], None]:
        def checked(call: msgspec.Struct, answer: Answer) -> None:
            command, peer = type(call).__name__, self._peer
            if may_command(peer, self._group):
                logger.info("%s by pid %d of user %d", command, peer.pid, peer.uid)
                perform(call, answer)
                return
            logger.warning("%s refused to pid %d of user %d", command, peer.pid, peer.uid)
            group = f", or a member of {self._group}" if self._group else ""
            allowed = f"root, the user that preforkd runs as{group}"
            answer(NotAllowed(f"{command} is allowed only to {allowed}"))

        return checked

    def _get_status(self, call: GetStatus, answer: Answer) -> None:
        def callback(memory: MemoryStatus | None) -> None:
            view = replace(self._backend.status(), memory=memory)
            if not may_command(self._peer, self._group):
                view = replace(view, workers=[_without_query(row) for row in view.workers])
            answer(StatusResult(view))

        if call.memory:
            self._backend.memory(callback)
        else:
            callback(None)

    def _get_memory(self, _call: GetMemory, answer: Answer) -> None:
        self._backend.memory(lambda memory: answer(MemoryResult(memory)))

    def _reload(self, call: Reload, answer: Answer) -> None:
        def callback(ended: ReloadAnswer) -> None:
            if ended.ok:
                number = ended.generation or 0
                answer(ReloadResult(number, ended.message, ended.live, ended.restart))
            else:
                blame = ended.blame or "internal"
                answer(ReloadFailed(blame, ended.message, ended.detail, ended.hint))

        self._backend.reload(callback, fresh=call.fresh)

    def _refork(self, _call: Refork, answer: Answer) -> None:
        def callback(ended: str | Failure) -> None:
            if isinstance(ended, Failure):
                blame = ended.blame.value
                answer(ReforkFailed(blame, ended.reason, ended.detail, ended.hint))
            else:
                answer(ReforkResult(ended))

        self._backend.refork(callback)

    def _scale(self, call: Scale, answer: Answer) -> None:
        backend = self._backend
        answer(ScaleResult(backend.scale_by(call.by) if call.by else backend.scale(call.size)))

    def _stop(self, call: Stop, answer: Answer) -> None:
        self._backend.stop(quick=call.quick)
        answer(StopResult())


def _without_query(row: WorkerStatus) -> WorkerStatus:
    # A query may be secret: the token of a link that resets a password, for example.
    target, mark, _ = row.busy_with.partition("?")
    return replace(row, busy_with=f"{target}?..." if mark else target)
