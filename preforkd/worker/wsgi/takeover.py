"""The relief: a thread that keeps a worker's connections going while the application has it for long.

It takes no part in short requests: while there is work, it looks every few milliseconds whether the
worker is still busy with the events that it was busy with at the last look, and in the application.
Then it takes the loop over: it reads, sends and expires what it can, and gives complete requests to
other workers, until the application returns. Without work it sleeps.

Who holds ``loop_lock`` may touch the connections. The worker gives it up around each call of the
application: releasing and taking a lock that nobody else wants costs no system call.
"""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("preforkd.worker")

TICK = 0.005
"""Seconds after which the worker is busy for long."""
_IDLE_TICKS = 20
"""Ticks without work after which the thread sleeps until it is called."""


class Takeover:
    """See the module.

    ``turn`` returns a number that changes whenever the worker waits for events again; ``run_loop`` does
    the worker's work until ``return_requested`` is true; ``wake`` ends its waiting.
    """

    def __init__(
        self, turn: Callable[[], int], run_loop: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        self.loop_lock = threading.RLock()
        """The worker's thread takes it (`reacquire`) before it begins."""
        self.asleep = True
        """`activate` is needed when there is work."""
        self.return_requested = False
        """The worker waits for custody."""
        self._turn = turn
        self._run_loop = run_loop
        self._wake = wake
        self._activated = threading.Semaphore(0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="preforkd-takeover", daemon=True)
        self._started = False

    def activate(self) -> None:
        """Say that there is work."""
        self.asleep = False
        if not self._started:
            try:
                self._thread.start()
            except RuntimeError as error:
                # The system grants no thread. It stays "awake", so that nobody calls again.
                logger.warning("connections wait while the application is busy: %s", error)
                return
            self._started = True
        self._activated.release()

    def reacquire(self) -> None:
        """Take custody after a call of the application, unless the caller has it."""
        if self.loop_lock._is_owned():  # type: ignore[attr-defined]
            return
        if not self.loop_lock.acquire(blocking=False):
            self.return_requested = True
            self._wake()
            self.loop_lock.acquire()
            self.return_requested = False

    def reacquire_after_exception(self) -> None:
        """Take custody, wherever an exception of a signal handler has come."""
        while True:
            try:
                self.reacquire()
                self.return_requested = False
            except BaseException:
                logger.exception("another exception of a signal handler")
            else:
                return

    def end(self) -> None:
        """End the thread; the caller has custody."""
        if self._started:
            self._ended.set()
            self._activated.release()
            self._thread.join()

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
                try:
                    self._run_loop()
                finally:
                    self.loop_lock.release()
                idle_ticks = 0
                continue
            idle_ticks += 1
            if idle_ticks > _IDLE_TICKS:
                self.asleep = True
                if self._turn() == seen:
                    return
                self.asleep = False
