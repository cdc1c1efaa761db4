"""The crew: threads that call a WSGI application which waits on others most of the time.

The loop goes on while they wait. A connection belongs to the thread that answers its request, and
comes back to the loop with the answer.
"""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from preforkd.ipc.slots import SlotWriter
from preforkd.worker.connection import Connection


class Crew:
    """``answer`` is what a thread does with a connection; ``wake`` tells the loop that one is done."""

    def __init__(
        self,
        size: int,
        answer: Callable[[Connection], None],
        wake: Callable[[], None],
        board: SlotWriter,
    ) -> None:
        self.done: deque[Connection] = deque()
        """Connections whose requests were answered; the loop takes them."""
        self.free = size
        """Threads that wait for work; counted by the loop's side only."""
        self._answer = answer
        self._wake = wake
        self._board = board
        self._work: queue.SimpleQueue[Connection | None] = queue.SimpleQueue()
        self._since: dict[Connection, int] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"preforkd-crew-{number}", daemon=True)
            for number in range(1, size + 1)
        ]
        self._started = 0

    def give(self, connection: Connection) -> None:
        """Let a free thread answer the request of a connection."""
        self.free -= 1
        if self._started < len(self._threads) - self.free:
            self._threads[self._started].start()
            self._started += 1
        self._since[connection] = time.monotonic_ns()
        if len(self._since) == 1:
            self._board.busy(self._since[connection])
        self._work.put(connection)

    def take(self) -> Connection | None:
        """Return a connection that comes back; None when there is none."""
        with contextlib.suppress(IndexError):
            connection = self.done.popleft()
            self.free += 1
            del self._since[connection]
            self._board.idle()
            if self._since:
                self._board.busy(next(iter(self._since.values())))
            return connection
        return None

    def end(self) -> None:
        """End the threads that wait for work."""
        for _ in range(self._started):
            self._work.put(None)

    def _run(self) -> None:
        while (connection := self._work.get()) is not None:
            self._answer(connection)
            self.done.append(connection)
            self._wake()
