"""Zygotes that are forked from workers: those that are not born yet, and who waits for one."""

from collections.abc import Callable

import msgspec

from preforkd.core import events as ev
from preforkd.errors import Blame, Failure
from preforkd.ipc import messages
from preforkd.ipc.channel import Channel, ChannelClosedError
from preforkd.ipc.slots import SlotReader
from preforkd.supervisor import children
from preforkd.supervisor.children import WorkerHandle, ZygoteHandle


class ReforkWaiters:
    """Those who have asked for a refork, and wait for what comes of it."""

    def __init__(self) -> None:
        self._waiters: list[Callable[[str | Failure], None]] = []

    def add(self, callback: Callable[[str | Failure], None]) -> None:
        """Have ``tell`` called, once, when it has ended: what was achieved, in words, or why not."""
        self._waiters.append(callback)

    def resolve(self, outcome: str | Failure) -> None:
        """Tell all who wait how it has ended."""
        waiters, self._waiters = self._waiters, []
        for callback in waiters:
            callback(outcome)


class _Pending(msgspec.Struct, frozen=True):
    generation: int
    worker: int
    channel: Channel[messages.FromZygote]
    slot_memory: SlotReader


class PendingReforks:
    """Zygotes that were asked for and are not born; what goes wrong is reported as their failure."""

    def __init__(self, report: Callable[[ev.Fact], None]) -> None:
        self._report = report
        self._pending: dict[int, _Pending] = {}

    def request(self, action: ev.ForkZygote, handle: WorkerHandle | None) -> None:
        """Ask a worker for the zygote."""
        if handle is None:
            self._failed(action.zygote, "the worker that was to fork it has exited")
            return
        try:
            channel, slot_memory = children.request_zygote(action.zygote, handle)
        except (OSError, ChannelClosedError) as error:
            reason = str(error) or "it has exited"
            self._failed(
                action.zygote, f"cannot send the refork request to worker {handle.slot}: {reason}"
            )
            return
        self._pending[action.zygote] = _Pending(
            action.generation, handle.worker, channel, slot_memory
        )

    def forked(
        self, handle: WorkerHandle, message: messages.Reforked, claim: Callable[[int], int | None]
    ) -> ZygoteHandle | None:
        """Return the handle of a zygote that its worker says is born; None if that is not so.

        ``claim`` returns a pidfd for a pid that is a child of ours, and nobody else's.
        """
        pending = self._pending.get(message.zygote)
        if pending is None or pending.worker != handle.worker:
            claimed = claim(message.pid)
            if claimed is not None:
                children.kill(claimed)  # given up while it was being forked
            return None
        pidfd = claim(message.pid)
        if pidfd is None:
            self.drop(message.zygote)
            self._failed(message.zygote, "the zygote exited as soon as it was forked")
            return None
        del self._pending[message.zygote]
        generation, channel, slot_memory = pending.generation, pending.channel, pending.slot_memory
        return ZygoteHandle(message.zygote, generation, channel, message.pid, pidfd, slot_memory)

    def failed(self, handle: WorkerHandle, zygote: int, failure: Failure) -> None:
        """Report that a worker could not fork this zygote, if it is the worker that was asked."""
        pending = self._pending.get(zygote)
        if pending is not None and pending.worker == handle.worker:
            self.drop(zygote)
            self._report(ev.ZygoteFailed(zygote, failure))

    def worker_ended(self, handle: WorkerHandle) -> None:
        """Report zygotes that will not be born, because their worker has ended."""
        for zygote, pending in list(self._pending.items()):
            if pending.worker == handle.worker:
                self.drop(zygote)
                self._failed(zygote, f"worker {handle.slot} exited while it forked the zygote")

    def drop(self, zygote: int) -> bool:
        """Give up one that is not born; tell whether there was one. Should it be born, it leaves."""
        pending = self._pending.pop(zygote, None)
        if pending is not None:
            pending.channel.close()
            pending.slot_memory.close()
        return pending is not None

    def _failed(self, zygote: int, reason: str) -> None:
        self._report(ev.ZygoteFailed(zygote, Failure(Blame.APPLICATION, reason)))
