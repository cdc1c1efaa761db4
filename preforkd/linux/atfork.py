"""Children that the application forks are no workers: they lose what makes a process one.

fork(2) copies all descriptors. A child that lives on would keep clients waiting for the end of their
answers and the port bound after the service has ended; one that comes back from the application's
call would accept, answer and be told to leave in its parent's place, unknown to the master. So each
descriptor that is the worker's, or the zygote's while it loads, is replaced in the child. Programs that
are executed are not concerned: all of these are close-on-exec.

Signal handlers are copied as well. With a worker's, a child would survive the SIGTERM of
``multiprocessing.Process.terminate()``, and by its descriptor for wake-ups what is sent to the child would
reach its parent. So the child finds the signals that preforkd has handlers for as Python sets them up.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

_OURS = "preforkd."
"""How the modules are named whose signal handlers are taken away."""


class ApplicationChildren:
    """Watches for them from now on; ``ours`` returns the descriptors that are this process's own."""

    def __init__(self, ours: Callable[[], Iterable[int]]) -> None:
        self._ours = ours
        self._parent: int | None = os.getpid()
        self._exempt = False
        self._done = False
        self._masks: dict[int, set[int]] = {}
        """What the threads that fork at this moment had blocked before."""
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.register_at_fork(
            before=self._block, after_in_parent=self._unblock, after_in_child=self._disown
        )

    @property
    def in_child(self) -> bool:
        """Tell whether this process is such a child."""
        return self._parent is not None and os.getpid() != self._parent

    @contextlib.contextmanager
    def exempt(self) -> Iterator[None]:
        """Let what is forked meanwhile keep everything: it is not the application's."""
        self._exempt = True
        try:
            yield
        finally:
            self._exempt = False

    def disable(self) -> None:
        """Watch no more: what cannot be undone does nothing."""
        os.close(self._null)
        self._parent, self._ours = None, tuple

    def _block(self) -> None:
        # What is sent to the child before its handlers are the default ones would be lost.
        if self._parent is not None and not self._done:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._masks[threading.get_ident()] = {int(number) for number in mask}

    def _unblock(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _disown(self) -> None:
        try:
            # Children of children are the application's own affair: by then it may have closed what was
            # replaced, and use the numbers.
            if self._parent is not None and not (self._exempt or self._done):
                self._done = True
                reset_signals()
                self._replace_descriptors()
        finally:
            self._unblock()

    def _replace_descriptors(self) -> None:
        # Replaced, not closed: the numbers must not become those of files that the child opens, which
        # objects of the worker would then write to.
        for descriptor in self._ours():
            if descriptor >= 0:
                os.dup2(self._null, descriptor, inheritable=False)


def reset_signals() -> None:
    """Set signals that preforkd handles as Python finds them, and no descriptor to be woken by.

    Handlers of the application's stay. In the main thread only.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if str(getattr(handler, "__module__", "")).startswith(_OURS):
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
