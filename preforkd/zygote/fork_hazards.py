"""What an application has made while it was loaded and cannot be used in a forked process, by what it is."""

import gc
import sys
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct


class _Kind(Struct, frozen=True):
    """``module`` and ``name`` of a class, what its objects are, and whether one of them is in use."""

    module: str
    name: str
    words: str
    in_use: Callable[[Any], bool]
    threads: str = ""
    """Where what its threads run is defined."""


_KINDS = (
    _Kind(
        "asyncio.base_events",
        "BaseEventLoop",
        "an event loop of asyncio",
        lambda it: not it.is_closed(),
    ),
    _Kind("uvloop", "Loop", "an event loop of uvloop", lambda it: not it.is_closed()),
    _Kind(
        "multiprocessing.pool",
        "Pool",
        "a pool of multiprocessing",
        lambda it: it._state == "RUN",
        "multiprocessing.pool",
    ),
    _Kind(
        "concurrent.futures.process",
        "ProcessPoolExecutor",
        "a ProcessPoolExecutor that has been used",
        lambda it: bool(it._processes),
        "concurrent.futures.process",
    ),
    _Kind(
        "concurrent.futures.thread",
        "ThreadPoolExecutor",
        "a ThreadPoolExecutor that has been used",
        lambda it: bool(it._threads),
        "concurrent.futures.thread",
    ),
    _Kind("grpc", "Channel", "a channel of gRPC", lambda _: True, "grpc"),
    _Kind("grpc", "Server", "a server of gRPC", lambda _: True, "grpc"),
    _Kind("grpc.aio", "Channel", "a channel of gRPC", lambda _: True, "grpc"),
    _Kind("zmq", "Context", "a context of ZeroMQ", lambda it: not it.closed),
)


class Found(Struct, frozen=True):
    """Something that is in use; ``threads``: see `_Kind`."""

    words: str
    threads: str


def find() -> list[Found]:
    """Return what there is of it, each kind once.

    Only what the collector knows is found. No code of the application's runs for objects of other types.
    """
    classes = [(kind, cls) for kind in _KINDS if isinstance(cls := _class(kind), type)]
    if not classes:
        return []
    objects = gc.get_objects()
    wanted: dict[type, list[_Kind]] = {}
    for each in set(map(type, objects)):
        if kinds := [kind for kind, cls in classes if cls in each.__mro__]:
            wanted[each] = kinds
    found: dict[str, Found] = {}
    if wanted:
        for each in objects:
            for kind in wanted.get(type(each), ()):
                if kind.words not in found and _in_use(kind, each):
                    found[kind.words] = Found(kind.words, kind.threads)
    return list(found.values())


def _class(kind: _Kind) -> Any:
    return getattr(sys.modules.get(kind.module), kind.name, None)


def _in_use(kind: _Kind, it: Any) -> bool:
    try:
        return kind.in_use(it)
    except Exception:  # not made to its end, or of another version
        return False


def belongs(module: str, found: Iterable[Found]) -> bool:
    """Tell whether a thread that runs what is defined in this module is of something that was found."""
    return any(
        each.threads and f"{module}.".startswith(f"{each.threads}.") for each in found if module
    )
