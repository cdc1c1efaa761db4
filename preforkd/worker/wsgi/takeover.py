"""The relief: a thread that keeps a worker's connections going while the application has it for long.

It takes no part in short requests: while there is work, it looks every few milliseconds whether the
worker is still busy with the events that it was busy with at the last look, and in the application.
Then it takes the loop over: it reads, sends and expires what it can, and gives complete requests to
other workers, until the application returns. Without work it sleeps.

Who holds ``custody`` may touch the connections. The worker gives it up around each call of the
application: releasing and taking a lock that nobody else wants costs no system call.
"""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("preforkd.worker")

TICK = 0.005
"""Seconds after which the worker is busy for long."""
_PATIENCE = 20
"""Ticks without work after which the thread sleeps until it is called."""


class Takeover:
    """See the module.

    ``turn`` returns a number that changes whenever the worker waits for events again; ``relieve`` does
    the worker's work until ``wanted`` is true; ``wake`` ends its waiting.
    """

    def __init__(
        self, turn: Callable[[], int], relieve: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        self.custody = threading.RLock()
        """The worker's thread takes it (`take_back`) before it begins."""
        self.asleep = True
        """`call` is needed when there is work."""
        self.wanted = False
        """The worker waits for custody."""
        self._turn = turn
        self._relieve = relieve
        self._wake = wake
        self._alarm = threading.Semaphore(0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="preforkd-relief", daemon=True)
        self._started = False

    def call(self) -> None:
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
        self._alarm.release()

    def take_back(self) -> None:
        """Take custody after a call of the application, unless the caller has it."""
        if self.custody._is_owned():  # type: ignore[attr-defined]
            return
        if not self.custody.acquire(blocking=False):
            self.wanted = True
            self._wake()
            self.custody.acquire()
            self.wanted = False

    def recover(self) -> None:
        """Take custody, wherever an exception of a signal handler has come."""
        while True:
            try:
                self.take_back()
                self.wanted = False
            except BaseException:
                logger.exception("another exception of a signal handler")
            else:
                return

    def end(self) -> None:
        """End the thread; the caller has custody."""
        if self._started:
            self._ended.set()
            self._alarm.release()
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._alarm.acquire()
            self._watch()

    def _watch(self) -> None:
        seen, quiet = -1, 0
        while not self._ended.wait(TICK):
            turn = self._turn()
            if turn != seen:
                seen, quiet = turn, 0
                continue
            if self.custody.acquire(blocking=False):
                try:
                    self._relieve()
                finally:
                    self.custody.release()
                quiet = 0
                continue
            quiet += 1
            if quiet > _PATIENCE:
                self.asleep = True
                if self._turn() == seen:
                    return
                self.asleep = False
