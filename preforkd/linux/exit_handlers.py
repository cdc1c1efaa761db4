"""Exit handlers that must run once, in the process that registered them, and not in each forked process.

A forked process inherits multiprocessing's list of child processes and the finalizers of `weakref.finalize`,
one of which removes each `tempfile.TemporaryDirectory`.  A worker that exits would terminate the children and
delete the directories that all workers use.  Only the process that created them may do so, and only if no other
process continues with them. multiprocessing follows the same rule in processes that it forks itself.  Functions
registered with `atexit` run in each process that exits, as in other preforking servers.
"""

import contextlib
import logging
import os
import sys
import weakref
from typing import Any


class DeferredExitHandlers:
    """Holds children and finalizers that forked processes must not inherit, until `restore`."""

    def __init__(self) -> None:
        self._children: set[Any] = set()
        self._finalizers: list[Any] = []

    def defer(self) -> None:
        """Take children and finalizers away; call it before each fork.

        The parent does it, not the child: every child would copy pages.
        """
        children = _children()
        self._children |= children
        children.clear()
        for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
            if finalizer.atexit:
                finalizer.atexit = False
                self._finalizers.append(finalizer)

    def restore(self) -> None:
        """Put them back, before this process exits."""
        _children().update(self._children)
        for finalizer in self._finalizers:
            finalizer.atexit = True  # does nothing if it has been called
        self._children, self._finalizers = set(), []


def _children() -> set[Any]:
    found = getattr(sys.modules.get("multiprocessing.process"), "_children", None)
    return found if isinstance(found, set) else set()


def flush_logging() -> None:
    """Flush handlers of logging: each forked process would write their buffers again."""
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):
            reference().flush()


def reset_multiprocessing() -> None:
    """Do in a forked process what multiprocessing does in those that it forks itself.

    Queues, locks and proxies of managers get their own threads and connections. The server of the start method
    ``forkserver`` belongs to the parent: another one is started on demand.
    """
    with contextlib.suppress(Exception):
        sys.modules["multiprocessing.util"]._run_after_forkers()
        # The process that created it removes it.
        sys.modules["multiprocessing.process"].current_process()._config.pop("tempdir", None)
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if getattr(server, "_forkserver_pid", None) is not None:
        with contextlib.suppress(Exception):
            os.close(server._forkserver_alive_fd)
            server._forkserver_pid = server._forkserver_alive_fd = None
            server._forkserver_address = None
