"""Children that the application forks are no workers: they lose what makes a process one.

fork(2) copies all descriptors. A child that lives on would keep clients waiting for the end of their
answers and the port bound after the service has ended; one that comes back from the application's
call would accept, answer and be told to leave in its parent's place, unknown to the master. So each
descriptor that is the worker's, or the zygote's while it loads, is replaced in the child. Programs that
are executed are not concerned: all of these are close-on-exec.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator


class Children:
    """Watches for them from now on; ``ours`` returns the descriptors that are this process's own."""

    def __init__(self, ours: Callable[[], Iterable[int]]) -> None:
        self._ours = ours
        self._parent: int | None = os.getpid()
        self._spared = False
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.register_at_fork(after_in_child=self._disown)

    @property
    def here(self) -> bool:
        """Tell whether this process is such a child."""
        return self._parent is not None and os.getpid() != self._parent

    @contextlib.contextmanager
    def spared(self) -> Iterator[None]:
        """Let what is forked meanwhile keep everything: it is not the application's."""
        self._spared = True
        try:
            yield
        finally:
            self._spared = False

    def release(self) -> None:
        """Watch no more: what cannot be undone does nothing."""
        os.close(self._null)
        self._parent, self._ours = None, tuple

    def _disown(self) -> None:
        # Replaced, not closed: the numbers must not become those of files that the child opens, which
        # objects of the worker would then write to.
        for descriptor in () if self._spared else self._ours():
            if descriptor >= 0:
                os.dup2(self._null, descriptor, inheritable=False)
