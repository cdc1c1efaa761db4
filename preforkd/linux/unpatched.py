"""The standard library as it was before the application was loaded, for preforkd's own modules.

gevent and eventlet replace parts of it in place by such as switch to another greenlet instead of waiting
(``gevent.monkey.patch_all()``); others replace clocks or sockets. A worker that waits for its clients, and
watches what the application does, cannot do so with these. So preforkd's modules get copies of the
modules that were changed; the application and the rest of the library keep what it has put there.
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
"""Watched where they are loaded: not imported by name, or not by everybody."""
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
_USED = frozenset(_CLOCKS | _CALLS | _SOCKETS | _LOCKS | _THREADS)
"""What a replacement is looked for by."""
_GREEN = frozenset({"DefaultSelector", "epoll", "start_new_thread", "start_joinable_thread"})
"""With one of these replaced, asyncio and threads of the operating system are not to be had."""


class UnpatchedModules:
    """The modules as they are at this moment."""

    def __init__(self) -> None:
        also = [module for name in _ALSO if (module := sys.modules.get(name)) is not None]
        self._before = {module: dict(vars(module)) for module in (*_WATCHED, *also)}
        self._copies: dict[ModuleType, ModuleType] = {}

    def replaced(self) -> dict[str, str]:
        """Return what has been replaced since, as ``module.name``, and the package that has done it."""
        return {
            f"{module.__name__}.{name}": _package(vars(module).get(name))
            for module, before in self._before.items()
            for name in sorted(_USED & before.keys())
            if vars(module).get(name) is not before[name]
        }

    def greenlets(self) -> str:
        """Return who has replaced threads or the waiting for descriptors; empty: nobody."""
        found = {what: who for what, who in self.replaced().items() if what.split(".")[1] in _GREEN}
        return next(filter(None, found.values()), "the application" if found else "")

    def keep(self) -> None:
        """Give preforkd's modules copies of the modules of which something has been replaced.

        To be called again when more of them have been loaded.
        """
        changed = {what.split(".")[0] for what in self.replaced()}
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
            # A function finds what it uses in the module that it was made in.
            if type(value) is FunctionType and value.__globals__ is vars(module):
                names[name] = _rebound(value, names)
        return copy

    def _fresh_threading(self) -> ModuleType:
        # Its classes use each other by their names in the module: they are made anew.
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
    # An object of a class of the patcher's, or a class or function of it.
    for each in (value, type(value)):
        name = str(getattr(each, "__module__", "") or "").partition(".")[0]
        if name and name not in sys.stdlib_module_names:
            return name
    return ""


def reset_hubs() -> None:
    """Let greenlets be switched in a process that was forked: their hubs hold an epoll of the parent's."""
    with contextlib.suppress(Exception):
        sys.modules["gevent"].reinit()
    with contextlib.suppress(Exception):
        hubs = sys.modules["eventlet.hubs"]
        if hasattr(hubs._threadlocal, "hub"):
            hubs.use_hub()
