"""What processes do at their end about things that others still use, since it was there before a fork.

A forked process inherits its parent's children as multiprocessing knows them, and its finalizers
(`weakref.finalize`, which removes `tempfile.TemporaryDirectory`). A worker that ends would terminate the
helpers and delete the directories of all. Only who has made them may do so, and only when nobody goes on
with them. multiprocessing has the same rule for the processes that it forks itself. Functions registered
with `atexit` run in each process that ends, as they do in every forking server.
"""

import contextlib
import logging
import os
import sys
import weakref
from typing import Any


class DeferredExitHandlers:
    """Children and finalizers that forked processes do not get; `restore` before this process ends."""

    def __init__(self) -> None:
        self._children: set[Any] = set()
        self._finalizers: list[Any] = []

    def defer(self) -> None:
        """Take them away, until they are given back: to be called before each fork.

        In the process that forks and not in its children: each of these would copy pages for it.
        """
        children = _children()
        self._children |= children
        children.clear()
        for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
            if finalizer.atexit:
                finalizer.atexit = False
                self._finalizers.append(finalizer)

    def restore(self) -> None:
        """Let this process end them when it ends."""
        _children().update(self._children)
        for finalizer in self._finalizers:
            finalizer.atexit = True  # nothing happens if it has been called
        self._children, self._finalizers = set(), []


def _children() -> set[Any]:
    found = getattr(sys.modules.get("multiprocessing.process"), "_children", None)
    return found if isinstance(found, set) else set()


def flush_logging() -> None:
    """Write what handlers of logging have collected: each forked process would write it once more."""
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):
            reference().flush()


def reset_multiprocessing() -> None:
    """Do in a newborn process what multiprocessing does in those that it forks itself.

    Its queues, locks, and proxies of managers are made usable: they would share threads and connections
    with other processes. The server of the start method ``forkserver`` is the parent's: another one is
    started when there is need.
    """
    with contextlib.suppress(Exception):
        sys.modules["multiprocessing.util"]._run_after_forkers()
        # It is removed by the process that has made it.
        sys.modules["multiprocessing.process"].current_process()._config.pop("tempdir", None)
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if getattr(server, "_forkserver_pid", None) is not None:
        with contextlib.suppress(Exception):
            os.close(server._forkserver_alive_fd)
            server._forkserver_pid = server._forkserver_alive_fd = None
            server._forkserver_address = None
