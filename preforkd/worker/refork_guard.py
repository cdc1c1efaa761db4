"""The guard of an automatic refork: what a worker has by now that must not be cloned into the next zygote.

A worker that forks the next zygote gives all later workers what it has built since its own fork: that is wanted
of caches and loaded modules, and a fault of connections, threads and the like. Only what can be found is refused;
identifiers, cached process numbers and counters that a request has made are cloned without notice.
"""

import _thread
import atexit
import contextlib
import fcntl
import gc
import os
import socket
import stat
import sys
import time
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from preforkd.linux import inventory

_NAMED = 5
"""Obstacles that are named."""
_ENDING = 0.02
"""Seconds for threads that end."""
_NUMPY = {"Generator", "RandomState"}
_LOCK = _thread.LockType


class ReforkGuard:
    """See the module. Created when a worker begins, before any hook of the application runs in it."""

    def __init__(self) -> None:
        self._descriptors = inventory.descriptors()
        self._maps = set(_shared_maps())
        self._exit_handlers = atexit._ncallbacks()
        self._finalizers = {id(each) for each in _finalizers()}

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Except the descriptors that are opened in this context: they are preforkd's, not the application's."""
        before = inventory.descriptors()
        yield
        self._descriptors |= inventory.descriptors() - before

    def obstacles(self, own: Iterable[int]) -> str:
        """Return what must not be cloned, in words; empty: nothing was found. ``own``: preforkd's descriptors."""
        found = list(self._found(frozenset(own)))
        more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        return ", ".join(found[:_NAMED]) + more

    def _found(self, own: frozenset[int]) -> Iterator[str]:
        for thread in _threads():
            yield f"a thread ({thread.name})"
        for pid in _children():
            yield f"a child process ({pid})"
        for number, _, _ in sorted(inventory.descriptors() - self._descriptors):
            if number not in own and (description := _unsafe(number)):
                yield description
        for mapped in sorted(set(_shared_maps()) - self._maps):
            yield f"writable memory that is shared with other processes ({mapped})"
        if (count := atexit._ncallbacks() - self._exit_handlers) > 0:
            yield f"exit handlers ({count} of atexit)"
        for finalizer in _finalizers():
            if id(finalizer) not in self._finalizers:
                yield f"a finalizer that runs at the exit ({_name(finalizer)})"
        yield from _young_objects()


def _threads() -> list[inventory.RunningThread]:
    # The system lists a thread for a moment after it was joined.
    deadline = time.monotonic() + _ENDING
    while (found := inventory.threads()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return found


def _children() -> Iterator[int]:
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(
            OSError
        ):  # it has ended; or the kernel does not list children, proc(5)
            yield from map(int, (thread / "children").read_text().split())


def _unsafe(number: int) -> str:
    """Describe a descriptor that two processes must not share; empty: they may.

    They may share a file that is only read, a device, and a socket of datagrams, which do not mix.
    """
    try:
        mode = os.fstat(number).st_mode
        path = os.readlink(f"/proc/self/fd/{number}")
        reads = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    except OSError:  # closed meanwhile
        return ""
    if stat.S_ISCHR(mode) or stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and reads):
        return ""
    if stat.S_ISSOCK(mode):
        known = inventory.connection(number)
        if known is None and _is_datagram(number):
            return ""
        return f"an open connection ({known or f'descriptor {number}'})"
    return f"an open descriptor ({number}, {path})"


def _is_datagram(number: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as sock:
        return sock.type == socket.SOCK_DGRAM


def _shared_maps() -> Iterator[str]:
    """Yield the mappings of this process that are writable and shared, proc(5) maps."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, permissions, _, _, inode, *path = line.split(maxsplit=5)
        if "w" in permissions and permissions.endswith("s"):
            yield path[0] if path else f"inode {inode}"


def _finalizers() -> list[Any]:
    """Return the finalizers that run at the exit: those of weakref and of multiprocessing."""
    registry: Any = weakref.finalize._registry  # type: ignore[attr-defined]
    ours = [each for each, info in list(registry.items()) if info.atexit]
    util = sys.modules.get("multiprocessing.util")
    return [*ours, *getattr(util, "_finalizer_registry", {}).values()]


def _name(finalizer: Any) -> str:
    peeked = finalizer.peek() if isinstance(finalizer, weakref.finalize) else None
    function = peeked[1] if peeked else getattr(finalizer, "_callback", finalizer)
    module = getattr(function, "__module__", "")
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _young_objects() -> Iterator[str]:
    """Describe random generators and held locks among the objects that were made since the heap was frozen."""
    objects = (
        gc.get_objects()
    )  # without those that `gc.freeze` has moved to the permanent generation
    reseeded = _reseeded()
    if any(_is_generator(each) and id(each) not in reseeded for each in objects):
        yield "a random generator, whose numbers all workers would repeat"
    for each in objects:
        for inner in gc.get_referents(each):
            if type(inner) is _LOCK and inner.locked():
                yield "a lock that is held"
                return


def _reseeded() -> set[int]:
    """Return the identifiers of the generators that the standard library seeds again in a forked process."""
    names = getattr(sys.modules.get("tempfile"), "_name_sequence", None)
    default = getattr(sys.modules.get("random"), "_inst", None)
    return {id(default), id(getattr(names, "_rng", None))}


def _is_generator(each: object) -> bool:
    kind, module = type(each), sys.modules.get("random")
    if module is not None and issubclass(kind, module.Random):
        return not issubclass(kind, module.SystemRandom)
    return kind.__module__.startswith("numpy.random") and kind.__name__ in _NUMPY
