"""The master's event loop: descriptors, times, signals, and calls from threads, in one thread by epoll.

The methods are named as those of asyncio's loops and mean the same. asyncio itself, with what it
imports, would be a third of the master's memory, for coroutines that the master has no use for: it
reacts to facts. epoll(7), signal.set_wakeup_fd()
"""

import contextlib
import heapq
import logging
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

logger = logging.getLogger("preforkd.master")

_WAKEUPS_AT_ONCE = 4096
"""Signals and calls from threads that are read before the loop turns again."""
_SWEEP_FROM = 64
"""Timers, cancelled ones with them, from which on the cancelled ones are looked for."""
_THREAD_WAKEUP = b"\0"
"""What stands for a call from a thread in the pipe where signals stand for themselves."""


class Call:
    """A call that is to come, at a time or soon; it can be cancelled."""

    __slots__ = ("arguments", "callback", "when")

    def __init__(
        self, when: float, callback: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        self.when = when
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        """Do not call; harmless when it has been called."""
        self.callback = None
        self.arguments = ()

    def __lt__(self, other: "Call") -> bool:
        return self.when < other.when


class Loop:
    """See the module. Times are those of `time`, in seconds."""

    def __init__(self) -> None:
        """Open what it needs. Raises OSError."""
        self._epoll = select.epoll()
        self._wakeup_read, self._wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._soon: deque[Call] = deque()
        self._timers: list[Call] = []
        self._sweep_at = _SWEEP_FROM
        self._readers: dict[int, Call] = {}
        self._writers: dict[int, Call] = {}
        self._signals: dict[int, Call] = {}
        self._previous: dict[int, Any] = {}
        """What was done about signals before."""
        self._stopped = False
        self._closed = False
        self._closing = threading.Lock()
        self.add_reader(self._wakeup_read, self._read_wakeups)

    def time(self) -> float:
        """Return the time by which it goes: seconds that never run back."""
        return time.monotonic()

    # --- calls -----------------------------------------------------------------------------------

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> Call:
        """Call in the next turn."""
        call = Call(0.0, callback, arguments)
        self._soon.append(call)
        return call

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Call:
        """Call in so many seconds."""
        return self.call_at(self.time() + delay, callback, *arguments)

    def call_at(self, when: float, callback: Callable[..., object], *arguments: Any) -> Call:
        """Call at this time, or soon after."""
        if len(self._timers) >= self._sweep_at:
            self._timers = [call for call in self._timers if call.callback is not None]
            heapq.heapify(self._timers)
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._timers))
        call = Call(when, callback, arguments)
        heapq.heappush(self._timers, call)
        return call

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call in the next turn; from any thread. Raises RuntimeError when the loop is closed."""
        with self._closing:
            if self._closed:
                raise RuntimeError("the loop is closed")
            self._soon.append(Call(0.0, callback, arguments))
            with contextlib.suppress(BlockingIOError):  # full of what will wake it
                os.write(self._wakeup_write, _THREAD_WAKEUP)

    # --- descriptors -----------------------------------------------------------------------------

    def add_reader(self, descriptor: int, callback: Callable[..., object], *arguments: Any) -> None:
        """Call in each turn in which the descriptor is readable, or at its end. Raises OSError."""
        self._watch(self._readers, descriptor, Call(0.0, callback, arguments))

    def remove_reader(self, descriptor: int) -> None:
        """Stop that; harmless for a descriptor that is not watched."""
        self._unwatch(self._readers, descriptor)

    def add_writer(self, descriptor: int, callback: Callable[..., object], *arguments: Any) -> None:
        """Call in each turn in which the descriptor takes data, or at its end. Raises OSError."""
        self._watch(self._writers, descriptor, Call(0.0, callback, arguments))

    def remove_writer(self, descriptor: int) -> None:
        """Stop that; harmless for a descriptor that is not watched."""
        self._unwatch(self._writers, descriptor)

    def _watch(self, calls: dict[int, Call], descriptor: int, call: Call) -> None:
        known = descriptor in self._readers or descriptor in self._writers
        before = calls.get(descriptor)
        calls[descriptor] = call
        try:
            if known and not self._modify(descriptor):
                # It was closed while it was watched, and another one has its number.
                self._unwatch(
                    self._writers if calls is self._readers else self._readers, descriptor
                )
                known = False
            if not known:
                self._epoll.register(descriptor, self._wanted(descriptor))
        except BaseException:
            del calls[descriptor]
            raise
        finally:
            if before is not None:
                before.cancel()

    def _modify(self, descriptor: int) -> bool:
        try:
            self._epoll.modify(descriptor, self._wanted(descriptor))
        except FileNotFoundError:
            return False
        return True

    def _unwatch(self, calls: dict[int, Call], descriptor: int) -> None:
        call = calls.pop(descriptor, None)
        if call is None:
            return
        call.cancel()
        wanted = self._wanted(descriptor)
        # A descriptor that was closed before is watched no more.
        with contextlib.suppress(OSError):
            if wanted:
                self._epoll.modify(descriptor, wanted)
            else:
                self._epoll.unregister(descriptor)

    def _wanted(self, descriptor: int) -> int:
        reads = select.EPOLLIN if descriptor in self._readers else 0
        return reads | (select.EPOLLOUT if descriptor in self._writers else 0)

    # --- signals ---------------------------------------------------------------------------------

    def add_signal_handler(
        self, number: int, callback: Callable[..., object], *arguments: Any
    ) -> None:
        """Call in the turn after the signal arrived; system calls that it interrupts go on.

        In the main thread only: others cannot have signals.
        """
        if not self._signals:
            signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        self._signals[number] = Call(0.0, callback, arguments)
        self._previous.setdefault(number, signal.signal(number, _ignore))
        signal.siginterrupt(number, False)

    def _read_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            # What threads want stands in the list of calls; the byte only ended the wait.
            for number in os.read(self._wakeup_read, _WAKEUPS_AT_ONCE):
                if number in self._signals:
                    self._soon.append(self._signals[number])

    # --- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn until `stop` has been called, since the last run or in this one.

        A call that raises is told of, with its stack, and the others go on.
        """
        while not self._stopped:
            self._turn()
        self._stopped = False

    def stop(self) -> None:
        """End the run when this turn's calls have been made."""
        self._stopped = True

    def _turn(self) -> None:
        for descriptor, events in self._epoll.poll(self._poll_timeout()):
            # An end, or an error, is news for whoever waits; he finds it by his system call.
            if events & ~select.EPOLLOUT and (reader := self._readers.get(descriptor)):
                self._soon.append(reader)
            if events & ~select.EPOLLIN and (writer := self._writers.get(descriptor)):
                self._soon.append(writer)
        now = self.time()
        while self._timers and self._timers[0].when <= now:
            self._soon.append(heapq.heappop(self._timers))
        # What a call asks for is due in the next turn; and a thread may add at any moment.
        for _ in range(len(self._soon)):
            call = self._soon.popleft()
            callback = call.callback
            if callback is None:
                continue
            try:
                callback(*call.arguments)
            except Exception:
                logger.exception("exception in event loop callback %r", callback)

    def _poll_timeout(self) -> float:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        if self._soon or self._stopped:
            return 0.0
        return max(0.0, self._timers[0].when - self.time()) if self._timers else -1.0

    def close(self) -> None:
        """Give everything back: signals do what they did before, and nobody is called any more."""
        for number, before in self._previous.items():
            signal.signal(number, before)
        if self._signals:
            signal.set_wakeup_fd(-1)
        with self._closing:
            self._closed = True
            self._epoll.close()
            os.close(self._wakeup_read)
            os.close(self._wakeup_write)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Stand for a handler, without which a signal would not come by the descriptor."""
