"""Objects that an application created while it was loaded and that do not work in a forked process."""

import gc
import sys
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct


class _HazardousClass(Struct, frozen=True):
    """A class: its module and name, a description of its objects, and whether one of them is in use."""

    module: str
    name: str
    description: str
    in_use: Callable[[Any], bool]
    threads: str = ""
    """The module whose functions its threads run."""


_CLASSES = (
    _HazardousClass(
        "asyncio.base_events",
        "BaseEventLoop",
        "an event loop of asyncio",
        lambda it: not it.is_closed(),
    ),
    _HazardousClass("uvloop", "Loop", "an event loop of uvloop", lambda it: not it.is_closed()),
    _HazardousClass(
        "multiprocessing.pool",
        "Pool",
        "a pool of multiprocessing",
        lambda it: it._state == "RUN",
        "multiprocessing.pool",
    ),
    _HazardousClass(
        "concurrent.futures.process",
        "ProcessPoolExecutor",
        "a ProcessPoolExecutor that has been used",
        lambda it: bool(it._processes),
        "concurrent.futures.process",
    ),
    _HazardousClass(
        "concurrent.futures.thread",
        "ThreadPoolExecutor",
        "a ThreadPoolExecutor that has been used",
        lambda it: bool(it._threads),
        "concurrent.futures.thread",
    ),
    _HazardousClass("grpc", "Channel", "a channel of gRPC", lambda _: True, "grpc"),
    _HazardousClass("grpc", "Server", "a server of gRPC", lambda _: True, "grpc"),
    _HazardousClass("grpc.aio", "Channel", "a channel of gRPC", lambda _: True, "grpc"),
    _HazardousClass("zmq", "Context", "a context of ZeroMQ", lambda it: not it.closed),
)


class ForkHazard(Struct, frozen=True):
    """An object that is in use; ``threads``: see `_HazardousClass`."""

    description: str
    threads: str


def find() -> list[ForkHazard]:
    """Return the objects in use, one of each class.

    Only objects that the garbage collector tracks are found. No code of the application runs for others.
    """
    classes = [(kind, cls) for kind in _CLASSES if isinstance(cls := _class(kind), type)]
    if not classes:
        return []
    objects = gc.get_objects()
    wanted: dict[type, list[_HazardousClass]] = {}
    for each in set(map(type, objects)):
        if kinds := [kind for kind, cls in classes if cls in each.__mro__]:
            wanted[each] = kinds
    found: dict[str, ForkHazard] = {}
    if wanted:
        for each in objects:
            for kind in wanted.get(type(each), ()):
                if kind.description not in found and _in_use(kind, each):
                    found[kind.description] = ForkHazard(kind.description, kind.threads)
    return list(found.values())


def _class(kind: _HazardousClass) -> Any:
    return getattr(sys.modules.get(kind.module), kind.name, None)


def _in_use(kind: _HazardousClass, it: Any) -> bool:
    try:
        return kind.in_use(it)
    except Exception:  # not completely initialised, or of another version
        return False


def belongs(module: str, found: Iterable[ForkHazard]) -> bool:
    """Return whether a thread that runs a function of this module belongs to one of these objects."""
    return any(
        each.threads and f"{module}.".startswith(f"{each.threads}.") for each in found if module
    )
