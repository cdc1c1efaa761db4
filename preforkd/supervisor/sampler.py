"""Sample the slots, only while something happens.

A worker that becomes busy sends ActivityResumed. From then on one sample follows another, at the intervals that
the callback returns, until a sample finds no worker busy, no request answered since the previous one, and no
connection waiting. Then each worker is requested to send ActivityResumed again, and sampling pauses. A
connection that is still waiting a moment after its arrival resumes sampling too, because all workers may hang
outside a request.
"""

import socket
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from preforkd.linux import backlog
from preforkd.loop import Call, Loop

ARRIVAL_DELAY = 1.0
"""Seconds from the arrival of a connection to a sample, unless a worker sends ActivityResumed before."""
RETRY_DELAY = 1.0
"""Seconds until the next sample after one that raised."""


class PoolSample(msgspec.Struct, frozen=True):
    """What the slots hold, by worker.

    Since when it is busy (loop time), how many requests it has answered, its heartbeat counter, and how many
    connections it has open.
    """

    busy: dict[int, float] = {}
    requests: dict[int, int] = {}
    beats: dict[int, int] = {}
    connections: dict[int, int] = {}


class Slots(Protocol):
    """The pool, as the sampler sees it."""

    def sample(self, now: float) -> PoolSample:
        """Return what all slots hold now."""

    def request_wakeups(self) -> None:
        """Have each worker send ActivityResumed when it next becomes busy."""


class Sampler:
    """See the module.

    ``callback`` is called with each sample and returns the seconds until the next one at the latest;
    ``listeners`` returns the sockets at which connections wait for workers.
    """

    def __init__(
        self,
        loop: Loop,
        slots: Slots,
        callback: Callable[[PoolSample], float],
        listeners: Callable[[], Iterable[socket.socket]],
    ) -> None:
        self._loop = loop
        self._slots = slots
        self._callback = callback
        self._listeners = listeners
        self.hold = False
        """Keep sampling although all is idle: set by the callback, which waits for a change."""
        self._watched: list[int] = []
        """Descriptors of listeners that are watched for the next connection."""
        self._timer: Call | None = None
        self._last = PoolSample()
        self._awake = False
        self._quiet_at = loop.time()

    def quiet_since(self) -> float | None:
        """Return since when all workers have been idle (loop time); None while sampling is active."""
        return None if self._awake else self._quiet_at

    def wake(self) -> None:
        """Sample now, and resume sampling: a worker has sent ActivityResumed."""
        if not self._awake:
            self._awake = True
            self._last = PoolSample()
            self.close()
            self._sample()

    def _arrived(self) -> None:
        self.unwatch()
        self._timer = self._loop.call_later(ARRIVAL_DELAY, self.wake)

    def _sample(self) -> None:
        # The loop logs what is raised; the samples go on, or no hung worker would be noticed any more.
        self._timer = retry = self._loop.call_later(RETRY_DELAY, self._sample)
        now = self._loop.time()
        sample = self._slots.sample(now)
        quiet = self._is_quiet(sample)
        if quiet:
            self._slots.request_wakeups()
            # One that became busy between the sample and the request sent no message.
            sample = self._slots.sample(now)
            quiet = self._is_quiet(sample)
        self._last = sample
        delay = self._callback(sample)
        retry.cancel()
        if quiet and not self.hold:
            self._awake = False
            self._quiet_at = now
            self._watch()
        else:
            self._timer = self._loop.call_later(delay, self._sample)

    def _is_quiet(self, sample: PoolSample) -> bool:
        if sample.busy or sample.requests != self._last.requests:
            return False
        return not any(backlog.readable(sock) for sock in self._listeners())

    def _watch(self) -> None:
        for sock in self._listeners():
            self._loop.add_reader(sock.fileno(), self._arrived)
            self._watched.append(sock.fileno())

    def unwatch(self) -> None:
        """Stop watching the listeners until all is idle again: one may be closed."""
        while self._watched:
            self._loop.remove_reader(self._watched.pop())

    def close(self) -> None:
        """Stop sampling until the next wake-up."""
        self.unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
