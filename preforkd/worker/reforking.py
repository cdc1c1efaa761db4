"""A worker that forks the next zygote from itself, between two requests."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from preforkd.apps.hooks import Hooks
from preforkd.config.settings import Settings
from preforkd.errors import Blame, Failure
from preforkd.ipc import messages
from preforkd.ipc.channel import close_all
from preforkd.ipc.slots import SlotWriter
from preforkd.linux import exit_handlers, fork, unpatched
from preforkd.linux.atfork import ApplicationChildren
from preforkd.worker.acceptor import Acceptor

if TYPE_CHECKING:
    from preforkd.worker.refork_guard import ReforkGuard


class BecomeZygote(BaseException):
    """Unwind a process that was forked from a worker, which becomes a zygote."""

    def __init__(self, descriptors: tuple[int, int]) -> None:
        super().__init__()
        self.descriptors = descriptors


def guard_for(settings: Settings) -> "ReforkGuard | None":
    """Return the guard of a worker that begins; None where no refork is guarded."""
    if settings.memory.refork.after != "once":
        return None
    from preforkd.worker.refork_guard import ReforkGuard  # noqa: PLC0415 - only where it is asked for

    return ReforkGuard()


@dataclass(frozen=True, slots=True)
class ReforkHandler:
    """Fork the next zygote from this worker; called by the server between two requests.

    ``report`` sends the result to the master; ``own_descriptors`` returns those of preforkd.
    """

    settings: Settings
    hooks: Hooks
    acceptor: Acceptor
    report: Callable[[messages.FromWorker], None]
    slot_writer: SlotWriter
    children: ApplicationChildren
    own_descriptors: Callable[[], Iterable[int]]
    guard: "ReforkGuard | None"

    def __call__(self, order: messages.ReforkRequest, descriptors: tuple[int, int]) -> None:
        """Fork and report the result to the master; in the new process, raise BecomeZygote."""
        child, reason = self._fork(descriptors, guarded=order.guarded)
        if isinstance(child, fork.ForkedChild):
            self.children.disable()
            self.acceptor.close_after_fork()
            self.slot_writer.close()
            child.wait()
            exit_handlers.reset_multiprocessing()
            unpatched.reset_hubs()
            raise BecomeZygote(descriptors)
        close_all(descriptors)
        if child is None:
            failure = Failure(Blame.APPLICATION, reason)
            self.report(messages.ReforkFailed(order.zygote, failure))
            return
        pid, go = child
        self.report(messages.Reforked(order.zygote, pid))
        os.close(go)

    def _fork(
        self, descriptors: tuple[int, int], *, guarded: bool
    ) -> tuple[tuple[int, int] | fork.ForkedChild | None, str]:
        if reason := self.settings.refork_refusal:
            return None, reason
        with self.slot_writer.busy_outside_request():
            reason = self.hooks.call("before_refork")
            if guarded and not reason:
                reason = self._refusal(descriptors)
        if reason:
            return None, reason
        # The new zygote keeps the exit handlers; this worker exits before long and must not run them.
        deferred = exit_handlers.DeferredExitHandlers()
        deferred.defer()
        try:
            with self.children.exempt():
                return fork.double_fork(), ""
        except OSError as error:
            deferred.restore()
            return None, f"fork: {error.strerror}"

    def _refusal(self, descriptors: tuple[int, int]) -> str:
        if self.guard is None:
            return "the worker was started before memory.refork: once was set"
        found = self.guard.obstacles([*self.own_descriptors(), *descriptors])
        return (
            f"memory.refork: once: the worker has what must not be cloned: {found}" if found else ""
        )
