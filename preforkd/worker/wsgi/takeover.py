"""The takeover thread: it runs a worker's loop while the application blocks the main thread for long.

Short requests do not involve it: while there is work, it checks every few milliseconds whether the main
thread is still in the application and has not polled since the last check. Then it runs the loop: it reads,
sends and expires, and hands complete requests to other workers, until the application returns. Without work
it sleeps.

The holder of ``loop_lock`` may touch the connections. The main thread releases it around each call of the
application: an uncontended lock costs no system call.
"""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("preforkd.worker")

TICK = 0.005
"""Seconds between two checks; the application runs for long when it runs across a whole interval."""
_IDLE_TICKS = 20
"""Checks without progress of the main thread after which the thread sleeps until `activate`."""


class Takeover:
    """See the module.

    ``turn`` returns a number that changes with each poll of the main thread; ``run_loop`` runs the loop
    until ``return_requested`` is true; ``wake`` ends its poll. ``enabled``: false where no other worker can
    be given a request, so that the thread would be of no use.
    """

    def __init__(
        self,
        turn: Callable[[], int],
        run_loop: Callable[[], None],
        wake: Callable[[], None],
        *,
        enabled: bool,
    ) -> None:
        self.loop_lock = threading.RLock()
        """Taken by the main thread (`reacquire`) before its first turn."""
        self.asleep = enabled
        """The thread sleeps: call `activate` when there is work."""
        self.active = False
        """The thread runs the loop, while the application blocks the main thread."""
        self.return_requested = False
        """The main thread waits for ``loop_lock``."""
        self._enabled = enabled
        self._turn = turn
        self._run_loop = run_loop
        self._wake = wake
        self._activated = threading.Semaphore(0)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def activate(self) -> None:
        """Wake the thread up: there is work."""
        self.asleep = False
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="preforkd-takeover", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # ``asleep`` stays false, so that the start is not tried again.
                logger.warning(
                    "cannot start the takeover thread; connections wait while the application runs: %s",
                    error,
                )
                return
            self._thread = thread
        self._activated.release()

    def reacquire(self) -> None:
        """Take ``loop_lock`` after a call of the application, unless the caller holds it."""
        if self.loop_lock._is_owned():  # type: ignore[attr-defined]
            return
        if not self.loop_lock.acquire(blocking=False):
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
        """Stop the thread; `activate` starts another. The caller holds ``loop_lock``."""
        if self._thread is not None:
            self._ended.set()
            self._activated.release()
            self._thread.join()
            self._thread = None
            self._ended.clear()
        self.asleep = self._enabled

    def forget_owner(self) -> None:
        """Free ``loop_lock`` in a child of the application, where its owner may not exist."""
        self.loop_lock = threading.RLock()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._activated.acquire()
            self._watch()

    def _watch(self) -> None:
        seen, idle_ticks = -1, 0
        while not self._ended.wait(TICK):
            turn = self._turn()
            if turn != seen:
                seen, idle_ticks = turn, 0
                continue
            if self.loop_lock.acquire(blocking=False):
                self.active = True
                try:
                    self._run_loop()
                finally:
                    self.active = False
                    self.loop_lock.release()
                idle_ticks = 0
                continue
            idle_ticks += 1
            if idle_ticks > _IDLE_TICKS:
                self.asleep = True
                if self._turn() == seen:
                    return
                self.asleep = False
