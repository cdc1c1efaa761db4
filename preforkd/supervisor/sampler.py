"""When the slots are looked at: only while something happens.

A worker that becomes busy sends ActivityResumed; from then on looks follow each other, as soon as whoever
is told of them wants the next, until one finds nobody busy, nothing answered since the one before, and no
connection that waits. Then wake-ups are requested again, and nothing is read. A connection for which nobody
has rung a moment later starts the looks as well: the workers may all hang outside a request.
"""

import socket
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from preforkd.linux import backlog
from preforkd.loop import Call, Loop

ARRIVAL_DELAY = 1.0
"""Seconds from a connection's arrival to a look, unless a worker reports activity before."""
RETRY_DELAY = 1.0
"""Seconds until the next look after one that raised."""


class PoolSample(msgspec.Struct, frozen=True):
    """What workers say of themselves.

    Since when who is busy (loop time), who has answered how much, how often each has shown that its loop
    turns, and how many connections each has open.
    """

    busy: dict[int, float] = {}
    requests: dict[int, int] = {}
    beats: dict[int, int] = {}
    connections: dict[int, int] = {}


class Slots(Protocol):
    """What is looked at."""

    def sample(self, now: float) -> PoolSample:
        """Return what all workers say now."""

    def request_wakeups(self) -> None:
        """Have each worker send ActivityResumed when it next becomes busy."""


class Sampler:
    """See the module.

    ``tell`` is called with each glance and returns the seconds until the next one at the latest;
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
        """Whoever is told of the looks waits for something, and wants them to go on."""
        self._watched: list[int] = []
        """Descriptors of listeners: whoever arrives there is noticed, once."""
        self._timer: Call | None = None
        self._last = PoolSample()
        self._awake = False
        self._quiet_at = loop.time()

    def quiet_since(self) -> float | None:
        """Return since when all has been quiet (loop time); None while it is not."""
        return None if self._awake else self._quiet_at

    def wake(self) -> None:
        """Take a worker's ActivityResumed: look now, and from now on."""
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
            # One that became busy between the look and the request sent no message.
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
        """Stop watching the listeners until the next quiet: one may be closed."""
        while self._watched:
            self._loop.remove_reader(self._watched.pop())

    def close(self) -> None:
        """Look no more until the next wake-up."""
        self.unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
