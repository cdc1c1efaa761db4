"""The unpatched standard library, for preforkd's own modules, after an application has monkey-patched it.

gevent and eventlet replace functions of the library that block with functions that switch to another greenlet
(``gevent.monkey.patch_all()``); test tools replace clocks or sockets.  The worker's loop does not work with
these.  So preforkd's modules get copies of the patched modules with their original contents; the application
and the rest of the library keep the patched ones.
"""

import contextlib
import os
import queue
import select
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

_OURS = "preforkd."
_WATCHED = (os, select, selectors, signal, socket, threading, time, queue)
_ALSO = ("_thread", "ssl")
"""Recorded if they are loaded."""
_CLOCKS = {"monotonic", "monotonic_ns", "sleep", "time", "time_ns"}
_CALLS = {"close", "epoll", "fork", "poll", "read", "signal", "waitid", "waitpid", "write"}
_SOCKETS = {"DefaultSelector", "EpollSelector", "SSLContext", "socket", "socketpair"}
_LOCKS = {"Event", "Lock", "RLock", "Semaphore", "SimpleQueue", "allocate_lock", "get_ident"}
_THREADS = {
    "_start_joinable_thread",
    "_start_new_thread",
    "start_joinable_thread",
    "start_new_thread",
}
_COMPARED = frozenset(_CLOCKS | _CALLS | _SOCKETS | _LOCKS | _THREADS)
"""The names that are compared."""
_GREEN = frozenset({"DefaultSelector", "epoll", "start_new_thread", "start_joinable_thread"})
"""If one of these is replaced, asyncio and threads of the operating system do not work."""


class UnpatchedModules:
    """Records the contents of the modules when it is created, before the application is imported."""

    def __init__(self) -> None:
        also = [module for name in _ALSO if (module := sys.modules.get(name)) is not None]
        self._before = {module: dict(vars(module)) for module in (*_WATCHED, *also)}
        self._copies: dict[ModuleType, ModuleType] = {}

    def replaced(self) -> dict[str, str]:
        """Return the names that were replaced since, as ``module.name``, with the package that replaced them."""
        return {
            f"{module.__name__}.{name}": _package(vars(module).get(name))
            for module, before in self._before.items()
            for name in sorted(_COMPARED & before.keys())
            if vars(module).get(name) is not before[name]
        }

    def greenlet_package(self) -> str:
        """Return the package that replaced threads or selectors; empty: none did."""
        found = {name: by for name, by in self.replaced().items() if name.split(".")[1] in _GREEN}
        return next(filter(None, found.values()), "the application" if found else "")

    def restore(self) -> None:
        """Give preforkd's modules copies of the patched modules.

        Call it again after more modules of preforkd have been imported.
        """
        changed = {name.split(".")[0] for name in self.replaced()}
        if "_thread" in changed:
            changed.add("threading")
        for module in self._before:
            if module.__name__ in changed and module not in self._copies:
                self._copies[module] = self._copy(module)
        for name, module in list(sys.modules.items()):
            if self._copies and name.startswith(_OURS) and module is not sys.modules[__name__]:
                _exchange(vars(module), self._copies)

    def _copy(self, module: ModuleType) -> ModuleType:
        if module is threading:
            return self._fresh_threading()
        copy = ModuleType(module.__name__)
        names = vars(copy)
        names.update(self._before[module])
        for name, value in self._before[module].items():
            # A function looks up globals in the module in which it was defined.
            if type(value) is FunctionType and value.__globals__ is vars(module):
                names[name] = _rebound(value, names)
        return copy

    def _fresh_threading(self) -> ModuleType:
        # Its classes refer to each other through the module: execute it again.
        spec = threading.__spec__
        assert spec is not None
        assert spec.loader is not None
        fresh = ModuleType("threading")
        fresh.__spec__ = spec
        with self._as_before("_thread"):
            spec.loader.exec_module(fresh)
        return fresh

    @contextlib.contextmanager
    def _as_before(self, name: str) -> Iterator[None]:
        module = sys.modules[name]
        sys.modules[name] = self._copies.get(module) or self._copy(module)
        try:
            yield
        finally:
            sys.modules[name] = module


def _rebound(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    copy = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _exchange(names: dict[str, Any], copies: dict[ModuleType, ModuleType]) -> None:
    for name, value in list(names.items()):
        if isinstance(value, ModuleType) and value in copies:
            names[name] = copies[value]


def _package(value: Any) -> str:
    # The replacement is a function or class of the package, or an instance of one of its classes.
    for each in (value, type(value)):
        name = str(getattr(each, "__module__", "") or "").partition(".")[0]
        if name and name not in sys.stdlib_module_names:
            return name
    return ""


def reset_hubs() -> None:
    """Give the hubs of gevent and eventlet a new epoll after a fork: theirs is shared with the parent."""
    with contextlib.suppress(Exception):
        sys.modules["gevent"].reinit()
    with contextlib.suppress(Exception):
        hubs = sys.modules["eventlet.hubs"]
        if hasattr(hubs._threadlocal, "hub"):
            hubs.use_hub()
