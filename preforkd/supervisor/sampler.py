"""When the slots are looked at: only while something happens.

A worker that becomes busy rings (its slot's bell); from then on looks follow each other, as soon as whoever
is told of them wants the next, until one finds nobody busy, nothing answered since the one before, and no
connection that waits. Then the bells are armed again, and nothing is read. A connection for which nobody
has rung a moment later starts the looks as well: the workers may all hang outside a request.
"""

import socket
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from preforkd.linux import backlog
from preforkd.loop import Call, Loop

PATIENCE = 1.0
"""Seconds from a connection's arrival to a look, unless a worker rings before."""


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

    def glance(self, now: float) -> PoolSample:
        """Return what all workers say now."""

    def arm(self) -> None:
        """Ask each worker to ring when it becomes busy."""


class Sampler:
    """See the module.

    ``tell`` is called with each glance and returns the seconds until the next one at the latest;
    ``listeners`` returns the sockets at which connections wait for workers.
    """

    def __init__(
        self,
        loop: Loop,
        slots: Slots,
        tell: Callable[[PoolSample], float],
        listeners: Callable[[], Iterable[socket.socket]],
    ) -> None:
        self._loop = loop
        self._slots = slots
        self._tell = tell
        self._listeners = listeners
        self.held = False
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

    def bell(self) -> None:
        """Take a worker's bell: look now, and from now on."""
        if not self._awake:
            self._awake = True
            self._last = PoolSample()
            self.close()
            self._look()

    def _arrived(self) -> None:
        self.unwatch()
        self._timer = self._loop.call_later(PATIENCE, self.bell)

    def _look(self) -> None:
        now = self._loop.time()
        glance = self._slots.glance(now)
        quiet = self._is_quiet(glance)
        if quiet:
            self._slots.arm()
            # One that became busy between the look and the arming did not ring.
            glance = self._slots.glance(now)
            quiet = self._is_quiet(glance)
        self._last = glance
        delay = self._tell(glance)
        if quiet and not self.held:
            self._awake = False
            self._quiet_at = now
            self._watch()
        else:
            self._timer = self._loop.call_later(delay, self._look)

    def _is_quiet(self, glance: PoolSample) -> bool:
        if glance.busy or glance.requests != self._last.requests:
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
        """Look no more until the next bell."""
        self.unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
