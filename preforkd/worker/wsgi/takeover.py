"""The takeover thread: it runs a worker's loop while the application blocks the main thread for long.

Short requests do not involve it: it waits for a timer, which the loop moves ahead every few milliseconds while
it has work. The timer expires only when the application has not returned for long, and once when the work
ends. Then the thread runs the loop: it reads, sends and expires, and hands complete requests to other workers,
until the application returns.

The holder of ``loop_lock`` may touch the connections. The main thread releases it around each call of the
application: an uncontended lock costs no system call.
"""

import logging
import math
import os
import threading
from collections.abc import Callable

from preforkd.linux.timerfd import Timer

logger = logging.getLogger("preforkd.worker")

_LONG = 0.010
"""Seconds after which the timer expires."""
_REARM = 0.005
"""Seconds for which the loop leaves the timer as it is; the application runs for long after 5 to 10 ms."""
_AT_ONCE = 1e-9


class Takeover:
    """See the module.

    ``run_loop`` runs the loop until ``return_requested`` is true; ``wake`` ends its poll. ``enabled``: false
    where no other worker can be given a request, so that the thread would be of no use.
    """

    def __init__(
        self, run_loop: Callable[[], None], wake: Callable[[], None], *, enabled: bool
    ) -> None:
        self.loop_lock = threading.RLock()
        """Taken by the main thread (`reacquire`) before its first turn."""
        self.active = False
        """The thread runs the loop, while the application blocks the main thread."""
        self.return_requested = False
        """The main thread waits for ``loop_lock``."""
        self.polling = False
        """The loop waits for events, and calls nothing; written by the loop."""
        self.arm_at = 0.0 if enabled else math.inf
        """From this time on (monotonic) a turn that has work calls `arm`."""
        self._run_loop = run_loop
        self._wake = wake
        self._timer: Timer | None = None
        self._thread: threading.Thread | None = None
        self._ended = False
        self._pid = os.getpid()

    @property
    def enabled(self) -> bool:
        """Return whether a thread takes over the loop when the application blocks the main thread for long."""
        return self.arm_at != math.inf

    def arm(self, now: float) -> None:
        """Move the timer ahead; called by the main thread at the beginning of a turn."""
        self.arm_at = now + _REARM
        if self._timer is None:
            self._start()
        if self._timer is not None:
            self._timer.arm(_LONG)

    def _start(self) -> None:
        timer = None
        try:
            timer = Timer()
            thread = threading.Thread(
                target=self._run, args=(timer,), name="preforkd-takeover", daemon=True
            )
            thread.start()
        except (OSError, RuntimeError) as error:
            if timer is not None:
                timer.close()
            self.arm_at = math.inf  # the start is not tried again
            logger.warning(
                "cannot start the takeover thread; connections wait while the application runs: %s",
                error,
            )
            return
        self._timer, self._thread = timer, thread

    def reacquire(self) -> None:
        """Take ``loop_lock`` after a call of the application, unless the caller holds it."""
        if self.loop_lock._is_owned():  # type: ignore[attr-defined]
            return
        if not self.loop_lock.acquire(blocking=False):
            if os.getpid() != self._pid:
                # In a child of the application the owner may not exist.
                self.loop_lock = threading.RLock()
                self.loop_lock.acquire()
                return
            self.return_requested = True
            self._wake()
            self.loop_lock.acquire()
            self.return_requested = False

    def reacquire_after_exception(self) -> None:
        """Take ``loop_lock`` after an exception of a signal handler, wherever it was raised."""
        while True:
            try:
                self.reacquire()
                self.return_requested = False
            except BaseException:
                logger.exception("another exception in a signal handler of the application")
            else:
                return

    def end(self) -> None:
        """Stop the thread; `arm` starts another. The caller holds ``loop_lock``."""
        if self._timer is None or self._thread is None:
            return
        self._ended = True
        self._timer.arm(_AT_ONCE)
        self._thread.join()
        self._timer.close()
        self._timer = self._thread = None
        self._ended = False
        self.arm_at = 0.0

    def descriptors(self) -> tuple[int, ...]:
        """Return the timer's descriptor, which is closed in a child of the application."""
        return (self._timer.fileno(),) if self._timer is not None else ()

    def _run(self, timer: Timer) -> None:
        try:
            while self._wait(timer):
                if self.loop_lock.acquire(blocking=False):
                    self.active = True
                    try:
                        self._run_loop()
                    finally:
                        self.active = False
                        self.loop_lock.release()
                if not self.polling and not self._ended:
                    timer.arm(
                        _LONG
                    )  # the same turn goes on, in which the application may block again
        except OSError as error:
            # The application has closed a descriptor: the main thread meets the same, and reports it.
            logger.debug("the takeover thread ends: %s", error)

    def _wait(self, timer: Timer) -> bool:
        """Wait until the timer expires; return False if the thread is to end."""
        timer.wait()
        return not self._ended
