"""The thread pool: threads that call a WSGI application which mostly waits for other services.

The loop runs in the main thread meanwhile. A connection belongs to the pool from `ThreadPool.submit` to
`ThreadPool.take_answered`.
"""

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from preforkd.ipc.slots import SlotWriter
from preforkd.worker.wsgi.connection import Connection

logger = logging.getLogger("preforkd.worker")


class ThreadPool:
    """``answer`` is called by a thread with a connection; ``wake`` wakes the loop when it has returned."""

    def __init__(
        self,
        size: int,
        answer: Callable[[Connection], None],
        wake: Callable[[], None],
        slot_writer: SlotWriter,
    ) -> None:
        self.done: deque[Connection] = deque()
        """Connections whose requests are answered, for the loop."""
        self.free = size
        """Threads without a request; written by the main thread only."""
        self._answer = answer
        self._wake = wake
        self._slot_writer = slot_writer
        self._work: queue.SimpleQueue[Connection | None] = queue.SimpleQueue()
        self._started_at: dict[Connection, int] = {}
        self._size = size
        self._threads: list[threading.Thread] = []
        self._refused = False
        """The system refused a further thread, and that was logged."""

    def submit(self, connection: Connection) -> None:
        """Let a free thread answer the request of a connection."""
        self.free -= 1
        if len(self._threads) < self._size - self.free:
            self._start_thread()
        self._started_at[connection] = time.monotonic_ns()
        if len(self._started_at) == 1:
            self._show()
        if self._threads:
            self._work.put(connection)
        else:
            self._finish(connection)

    def _start_thread(self) -> None:
        # If it cannot be started, the other threads answer, or the main thread if there is none.
        name = f"preforkd-thread-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._refused:
                logger.warning(
                    "cannot start a thread; %d threads answer requests: %s",
                    len(self._threads),
                    error,
                )
            self._refused = True
        else:
            self._threads.append(thread)
            self._refused = False

    def take_answered(self) -> Connection | None:
        """Return the next answered connection; None: there is none."""
        with contextlib.suppress(IndexError):
            connection = self.done.popleft()
            self.free += 1
            del self._started_at[connection]
            self._slot_writer.request_done()
            if self._started_at:
                self._show()
            return connection
        return None

    def _show(self) -> None:
        # The oldest request is the first to be overdue.
        connection, since = next(iter(self._started_at.items()))
        if connection.request is not None:
            self._slot_writer.set_request_line(connection.request.cached.line)
        self._slot_writer.set_busy(since)

    @property
    def oldest(self) -> Connection | None:
        """The connection whose request has been with a thread for longest; None if there is none."""
        return next(iter(self._started_at), None)

    @property
    def idle(self) -> bool:
        """Return whether no thread has a request."""
        return not self._started_at

    def stop(self) -> None:
        """Stop all threads after their current requests; `submit` starts them again."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run(self) -> None:
        while (connection := self._work.get()) is not None:
            self._finish(connection)

    def _finish(self, connection: Connection) -> None:
        self._answer(connection)
        self.done.append(connection)
        self._wake()
