"""Reforks: zygotes that workers were ordered to fork, and the callbacks that wait for the result."""

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
    """The callbacks of those who requested a refork."""

    def __init__(self) -> None:
        self._waiters: list[Callable[[str | Failure], None]] = []

    def add(self, callback: Callable[[str | Failure], None]) -> None:
        """Have ``callback`` called once when the refork has ended: with a message, or the failure."""
        self._waiters.append(callback)

    def resolve(self, outcome: str | Failure) -> None:
        """Call all callbacks with the result, once."""
        waiters, self._waiters = self._waiters, []
        for callback in waiters:
            callback(outcome)


class _Pending(msgspec.Struct, frozen=True):
    generation: int
    worker: int
    channel: Channel[messages.FromZygote]
    slot_memory: SlotReader


class PendingReforks:
    """Zygotes that were ordered and not forked yet; an error is reported as the zygote's failure."""

    def __init__(self, report: Callable[[ev.Fact], None]) -> None:
        self._report = report
        self._pending: dict[int, _Pending] = {}

    def request(self, action: ev.ForkZygote, handle: WorkerHandle | None) -> None:
        """Order a worker to fork the zygote."""
        if handle is None:
            self._failed(action.zygote, "the worker that was to fork it has exited")
            return
        try:
            channel, slot_memory = children.request_zygote(
                action.zygote, handle, guarded=action.guarded
            )
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
        """Return the handle of a zygote that its worker reports as forked; None if that is not true.

        ``claim`` returns a pidfd if the pid is that of a new child of the master, else None.
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
        """Report that a worker could not fork this zygote, if it is the worker that was ordered to."""
        pending = self._pending.get(zygote)
        if pending is not None and pending.worker == handle.worker:
            self.drop(zygote)
            self._report(ev.ZygoteFailed(zygote, failure))

    def worker_ended(self, handle: WorkerHandle) -> None:
        """Report the failure of zygotes whose worker has exited."""
        for zygote, pending in list(self._pending.items()):
            if pending.worker == handle.worker:
                self.drop(zygote)
                self._failed(zygote, f"worker {handle.slot} exited while it forked the zygote")

    def drop(self, zygote: int) -> bool:
        """Give up a pending zygote; return whether there was one. If it is forked anyway, it exits."""
        pending = self._pending.pop(zygote, None)
        if pending is not None:
            pending.channel.close()
            pending.slot_memory.close()
        return pending is not None

    def _failed(self, zygote: int, reason: str) -> None:
        self._report(ev.ZygoteFailed(zygote, Failure(Blame.APPLICATION, reason)))
