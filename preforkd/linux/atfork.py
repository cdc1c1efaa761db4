"""Children that the application forks lose preforkd's descriptors and signal handlers.

fork(2) copies all descriptors.  A child that keeps running would keep the connections of clients open after
their responses, and the port bound after the service has stopped; one that returns from the application's call
would accept connections and read the master's messages in its parent's place.  So each descriptor of the
worker, or of the zygote while it loads, is replaced in the child.  Executed programs are not affected: all of
these descriptors are close-on-exec.

Signal handlers are copied as well.  With those of a worker, a child would survive the SIGTERM of
``multiprocessing.Process.terminate()``, and signals to the child would wake its parent through the wake-up
descriptor.  So the signals that preforkd handles get Python's default handlers in the child.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

_OURS = "preforkd."
"""The prefix of modules whose signal handlers are removed."""


class ApplicationChildren:
    """Acts in children that are forked from now on; ``ours`` returns this process's descriptors."""

    def __init__(self, ours: Callable[[], Iterable[int]]) -> None:
        self._ours = ours
        self._parent: int | None = os.getpid()
        self._exempt = False
        self._done = False
        self._masks: dict[int, set[int]] = {}
        """The signal masks of threads that are forking, from before the fork."""
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.register_at_fork(
            before=self._block, after_in_parent=self._unblock, after_in_child=self._disown
        )

    @property
    def in_child(self) -> bool:
        """Return whether this process is such a child."""
        return self._parent is not None and os.getpid() != self._parent

    @contextlib.contextmanager
    def exempt(self) -> Iterator[None]:
        """Leave children that are forked meanwhile unchanged: preforkd forks them."""
        self._exempt = True
        try:
            yield
        finally:
            self._exempt = False

    def disable(self) -> None:
        """Stop; the functions stay registered (os.register_at_fork cannot undo it) and do nothing."""
        os.close(self._null)
        self._parent, self._ours = None, tuple

    def _block(self) -> None:
        # A signal that arrives in the child before the handlers are reset would be lost.
        if self._parent is not None and not self._done:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._masks[threading.get_ident()] = {int(number) for number in mask}

    def _unblock(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _disown(self) -> None:
        try:
            # Not in children of children: the child may have closed the replacements and reused the numbers.
            if self._parent is not None and not (self._exempt or self._done):
                self._done = True
                reset_signals()
                self._replace_descriptors()
        finally:
            self._unblock()

    def _replace_descriptors(self) -> None:
        # Replaced, not closed: objects of the worker would write to files that get the numbers later.
        for descriptor in self._ours():
            if descriptor >= 0:
                os.dup2(self._null, descriptor, inheritable=False)


def reset_signals() -> None:
    """Reset signals that preforkd handles to Python's defaults, and remove the wake-up descriptor.

    The application's handlers stay. Call it in the main thread only.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if str(getattr(handler, "__module__", "")).startswith(_OURS):
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
