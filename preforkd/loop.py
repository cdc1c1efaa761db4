"""The master's event loop: descriptors, timers, signals and calls from threads, in one thread, by epoll.

The methods have the names and meanings of those of asyncio's loops. asyncio itself, with its imports, would
take a third of the master's memory, for coroutines that the master does not use. epoll(7), signal.set_wakeup_fd()
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
"""Wake-up bytes (signals and calls from threads) that are read per turn."""
_SWEEP_FROM = 64
"""Number of timers above which cancelled ones are removed."""
_THREAD_WAKEUP = b"\0"
"""The wake-up byte of a call from a thread; a signal writes its number."""


class Call:
    """A scheduled call; it can be cancelled."""

    __slots__ = ("arguments", "callback", "when")

    def __init__(
        self, when: float, callback: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        self.when = when
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        """Cancel the call; no effect if it was made."""
        self.callback = None
        self.arguments = ()

    def __lt__(self, other: "Call") -> bool:
        return self.when < other.when


class Loop:
    """See the module. Times are those of `time`, in seconds."""

    def __init__(self) -> None:
        """Open the epoll and the wake-up pipe. Raises OSError."""
        self._epoll = select.epoll()
        self._wakeup_read, self._wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._soon: deque[Call] = deque()
        self._timers: list[Call] = []
        self._sweep_at = _SWEEP_FROM
        self._readers: dict[int, Call] = {}
        self._writers: dict[int, Call] = {}
        self._signals: dict[int, Call] = {}
        self._previous: dict[int, Any] = {}
        """The handlers of signals before."""
        self._stopped = False
        self._closed = False
        self._closing = threading.Lock()
        self.add_reader(self._wakeup_read, self._read_wakeups)

    def time(self) -> float:
        """Return the time of the loop: monotonic seconds."""
        return time.monotonic()

    # --- calls -----------------------------------------------------------------------------------

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> Call:
        """Call in the next turn."""
        call = Call(0.0, callback, arguments)
        self._soon.append(call)
        return call

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Call:
        """Call after ``delay`` seconds."""
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
            with contextlib.suppress(BlockingIOError):  # full: the loop wakes up anyway
                os.write(self._wakeup_write, _THREAD_WAKEUP)

    # --- descriptors -----------------------------------------------------------------------------

    def add_reader(self, descriptor: int, callback: Callable[..., object], *arguments: Any) -> None:
        """Call in each turn in which the descriptor is readable, or at its end. Raises OSError."""
        self._watch(self._readers, descriptor, Call(0.0, callback, arguments))

    def remove_reader(self, descriptor: int) -> None:
        """Stop watching; no effect on a descriptor that is not watched."""
        self._unwatch(self._readers, descriptor)

    def add_writer(self, descriptor: int, callback: Callable[..., object], *arguments: Any) -> None:
        """Call in each turn in which the descriptor takes data, or at its end. Raises OSError."""
        self._watch(self._writers, descriptor, Call(0.0, callback, arguments))

    def remove_writer(self, descriptor: int) -> None:
        """Stop watching; no effect on a descriptor that is not watched."""
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
        # A descriptor that was closed before is not in the epoll any more.
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
        """Call in the turn after the signal arrived; interrupted system calls are restarted.

        To be called in the main thread, the only one that may set signal handlers.
        """
        if not self._signals:
            signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        self._signals[number] = Call(0.0, callback, arguments)
        self._previous.setdefault(number, signal.signal(number, _ignore))
        signal.siginterrupt(number, False)

    def _read_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            # The calls of threads are queued already; their bytes only end the wait.
            for number in os.read(self._wakeup_read, _WAKEUPS_AT_ONCE):
                if number in self._signals:
                    self._soon.append(self._signals[number])

    # --- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until `stop` is called, or return at once if it was called since the last run.

        An exception of a callback is logged with its traceback; the loop goes on.
        """
        while not self._stopped:
            self._turn()
        self._stopped = False

    def stop(self) -> None:
        """Return from `run` when the calls of this turn have been made."""
        self._stopped = True

    def _turn(self) -> None:
        for descriptor, events in self._epoll.poll(self._poll_timeout()):
            # Hang-up and error go to reader and writer, whose next system call finds out.
            if events & ~select.EPOLLOUT and (reader := self._readers.get(descriptor)):
                self._soon.append(reader)
            if events & ~select.EPOLLIN and (writer := self._writers.get(descriptor)):
                self._soon.append(writer)
        now = self.time()
        while self._timers and self._timers[0].when <= now:
            self._soon.append(heapq.heappop(self._timers))
        # Only the calls queued so far: callbacks and threads add further ones for the next turn.
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
        """Restore the signal handlers and close the descriptors; no callback is called any more."""
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
    """Do nothing: without a handler, the signal would not be written to the wake-up descriptor."""
