"""The immortal heap: objects whose reference counts are never written again (PEP 683).

CPython 3.12 and later neither count references to nor free an object whose reference count has a certain
value.  If all objects of the zygote have it, workers do not write to shared pages by using them.
Immortal objects are never freed or finalized, and weak references to them stay alive.

All containers that the collector tracks are marked, then the objects that they refer to (``tp_traverse``,
through `gc.get_referents`), until no unmarked object is found.  The mark is the immortal count itself: no table
of visited objects is needed.  References that ``tp_traverse`` does not visit are followed by type:
`_HIDDEN_REFERENTS`.

Reading and writing millions of counts in Python would be slow; the kernel does it.  One preadv(2) writes
the immortal count from a file to 1024 objects, one pwritev(2) reads theirs into another; a wrong address is an
error (EFAULT) and not a crash.  The addresses are taken from a tuple of the objects.
"""

import builtins
import ctypes
import functools
import gc
import logging
import mmap
import os
import re
import sys
import sysconfig
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, compress
from types import CodeType
from typing import Any

logger = logging.getLogger("preforkd.zygote")

COUNT = 0xFFFFFFFF if sys.version_info < (3, 14) else 3 << 30
"""The reference count of an immortal object, 32 bits: Include/object.h, from 3.14 on Include/refcount.h.

3.14 increments some counts without looking whether the object is immortal: all ones would become 0.
"""
TESTED = {(3, 12): 0, (3, 13): 0, (3, 14): 5, (3, 15): 0}
"""The versions with which this was tested, and the first patch release of each.

3.14.0 to 3.14.4 have an incremental garbage collector, which 3.14.5 replaced by the former one.
"""
_WRITTEN = COUNT if sys.version_info < (3, 14) else COUNT | 1 << 48
"""What is written to the first 8 bytes of a mortal object, as `_Py_SetImmortal` does: from 3.14 on a flag, too.

A reference on the stack of the interpreter to an object without this flag changes the count
(pycore_stackref.h). A mortal object has no flags.
"""
_TUPLE_ITEMS = 24 if sys.version_info < (3, 14) else 32
"""The offset of a tuple's items; from 3.14 on its hash is before them."""

_unfreeze = gc.unfreeze

_IOV_MAX = 1024
_CHUNK = 64 * _IOV_MAX
"""Objects whose counts are read or written together."""
_BATCH = 16 * 1024
"""Containers whose referents are requested together."""
_HAVE_GC = 1 << 14
"""Py_TPFLAGS_HAVE_GC (Include/object.h)."""
_IS_MORTAL = b"\1" * 128 + b"\0" * 128
"""Translates the count's highest byte to whether the object is mortal: its highest bit is not set."""


def unsupported_reason() -> str:
    """Return why this interpreter's heap cannot be made immortal; empty if it can."""
    return next(_unsupported_reasons(), "")


def _unsupported_reasons() -> Iterator[str]:
    name = sys.implementation.name
    version = ".".join(map(str, sys.version_info[:3]))
    known = ", ".join(f"{major}.{minor}.{patch}" for (major, minor), patch in TESTED.items())
    if name != "cpython":
        yield f"it needs CPython, this is {name}"
    if sys.version_info < (3, 12):
        yield f"it needs CPython 3.12 or later, this is {version}, which has no immortal objects"
    patch = TESTED.get(sys.version_info[:2])
    if patch is None or sys.version_info[2:4] < (patch, "final"):
        yield f"it was not tested with CPython {version}, only with {known} and their later patch releases"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        yield "this CPython is free-threaded, and counts references in another way"
    if hasattr(sys, "gettotalrefcount") or hasattr(sys, "getobjects"):
        yield "this is a debug build of CPython, which counts all references"
    if (object.__basicsize__, tuple.__basicsize__, sys.byteorder) != (16, _TUPLE_ITEMS, "little"):
        yield "the layout of objects differs from the tested one (64-bit, little-endian)"
    if _interpreters() != 1:
        yield "there are subinterpreters, whose objects cannot be found"


def _interpreters() -> int:
    api = ctypes.pythonapi
    for function in (api.PyInterpreterState_Head, api.PyInterpreterState_Next):
        function.restype = ctypes.c_void_p
    api.PyInterpreterState_Next.argtypes = [ctypes.c_void_p]
    count, state = 0, api.PyInterpreterState_Head()
    while state:
        count, state = count + 1, api.PyInterpreterState_Next(state)
    return count


def immortalise() -> int:
    """Make every reachable object immortal; return the number of objects that were not before.

    The collector must be disabled, and `unsupported_reason` empty. Frozen objects (`gc.freeze`) are included,
    and all are frozen afterwards; `gc.unfreeze` has no effect from then on. Raises OSError.
    """
    gc.unfreeze = _unfreeze_without_effect
    try:
        # ctypes makes types here, before the list of objects is taken: see the last step.
        with open_counts() as counts:
            _unfreeze()
            known = gc.get_objects()
            gc.freeze()
            traversal = _Traversal(counts)
            for start in range(0, len(known), _CHUNK):
                traversal.mark(tuple(known[start : start + _CHUNK]))
            while known:
                batch = known[-_BATCH:]
                del known[-_BATCH:]
                traversal.follow(batch)
        return traversal.marked
    finally:
        # The collector of 3.14 untracks an immortal object that is not frozen, and crashes if that is a weak
        # reference with a callback: what was made meanwhile is frozen, too.
        gc.freeze()


@functools.cache  # one message for each process
def _unfreeze_without_effect() -> None:
    # A collection that visits immortal objects writes to all their pages. That of 3.14 may crash.
    logger.warning(
        "gc.unfreeze() has no effect: the heap is immortal, and must stay out of the garbage collector's reach; "
        "memory.immortal: false lets the application call it"
    )


class _Traversal:
    """The traversal of the heap; ``marked`` is the number of objects that it made immortal."""

    def __init__(self, counts: "Counts") -> None:
        self.marked = 0
        self._counts = counts
        self._types = _TypeTable()

    def mark(self, objects: tuple[Any, ...]) -> tuple[Any, ...]:
        """Make at most `_CHUNK` objects immortal and return those that were not before."""
        mortal = tuple(compress(objects, self._counts.mortal(objects)))
        self._counts.write(mortal)
        self.marked += len(mortal)
        return mortal

    def follow(self, containers: list[Any]) -> None:
        """Make immortal all objects that can be reached from these."""
        found = containers
        while found:
            batch = found[-_BATCH:]
            del found[-_BATCH:]
            self._referents(gc.get_referents(*batch), found)
            for extra in self._hidden(batch):
                self._referents(list(extra), found)

    def _referents(self, referents: list[Any], found: list[Any]) -> None:
        for start in range(0, len(referents), _CHUNK):
            mortal = self.mark(tuple(referents[start : start + _CHUNK]))
            types = map(self._types.__getitem__, map(id, map(type, mortal)))
            more = list(compress(mortal, types))
            # An object may occur more than once among those that were not marked yet.
            found += dict(zip(map(id, more), more, strict=True)).values()

    def _hidden(self, batch: list[Any]) -> Iterator[Iterable[Any]]:
        types = list(map(self._types.__getitem__, map(id, map(type, batch))))
        for number in set(types) - {_LEAF, _CONTAINER}:
            yield self._types.hidden_referents[number](compress(batch, map(number.__eq__, types)))


# --- types ---------------------------------------------------------------------------------------

_LEAF, _CONTAINER = 0, 1


class _TypeTable(dict[int, int]):
    """From the id of a type: `_LEAF`, `_CONTAINER`, or an index into ``hidden_referents``.

    It looks at types only, through the slots of ``type``: no code of the application runs.
    """

    def __init__(self) -> None:
        super().__init__()
        numpy = sys.modules.get("numpy")
        array_type: Any = getattr(numpy, "ndarray", None)
        found = list(_HIDDEN_REFERENTS)
        if isinstance(array_type, type):
            found.append((array_type, lambda arrays: _of_arrays(arrays, array_type)))
        frozen_dict: Any = getattr(builtins, "frozendict", None)  # 3.15; not a subclass of dict
        if frozen_dict is not None:
            found.append((frozen_dict, lambda dicts: _of_frozen_dicts(dicts, frozen_dict)))
        self._bases = [base for base, _ in found]
        self.hidden_referents: dict[int, Callable[[Iterable[Any]], Iterable[Any]]] = {
            number: extra for number, (_, extra) in enumerate(found, _CONTAINER + 1)
        }

    def __missing__(self, key: int) -> int:
        cls = ctypes.cast(key, ctypes.py_object).value  # an instance is alive, so the type is
        number = _CONTAINER if type.__dict__["__flags__"].__get__(cls) & _HAVE_GC else _LEAF
        mro = type.__dict__["__mro__"].__get__(cls)
        for index, base in enumerate(self._bases, _CONTAINER + 1):
            if any(entry is base for entry in mro):
                number = index
        self[key] = number
        return number


def _of_dicts(dicts: Iterable[Any]) -> Iterable[Any]:
    # tp_traverse of a dictionary does not visit the keys if all are strings.
    return chain.from_iterable(map(dict.keys, dicts))


def _of_frozen_dicts(dicts: Iterable[Any], base: Any) -> Iterable[Any]:
    return chain.from_iterable(map(base.keys, dicts))


def _of_types(types: Iterable[Any]) -> Iterable[Any]:
    name, qualified = (type.__dict__[word].__get__ for word in ("__name__", "__qualname__"))
    return chain.from_iterable((name(cls), qualified(cls)) for cls in types)


def _of_code(codes: Iterable[Any]) -> Iterable[Any]:
    return chain.from_iterable(
        (
            code.co_consts,
            code.co_names,
            code.co_filename,
            code.co_name,
            code.co_qualname,
            code.co_linetable,
            code.co_exceptiontable,
        )
        for code in codes
    )


def _of_patterns(patterns: Iterable[Any]) -> Iterable[Any]:
    return (pattern.pattern for pattern in patterns)


def _of_ranges(ranges: Iterable[Any]) -> Iterable[Any]:
    return chain.from_iterable((each.start, each.stop, each.step) for each in ranges)


def _of_arrays(arrays: Iterable[Any], exact: Any) -> Iterable[Any]:
    # The collector does not track numpy's arrays of objects, in which pandas keeps strings.
    return chain.from_iterable(
        each.ravel(order="K").tolist()
        for each in arrays
        if type(each) is exact and each.dtype.kind == "O"
    )


_HIDDEN_REFERENTS: tuple[tuple[type, Callable[[Iterable[Any]], Iterable[Any]]], ...] = (
    (dict, _of_dicts),
    (type, _of_types),
    (CodeType, _of_code),
    (re.Pattern, _of_patterns),
    (range, _of_ranges),
)
"""References that ``tp_traverse`` of a type does not visit."""


# --- counts --------------------------------------------------------------------------------------


@contextmanager
def open_counts() -> Iterator["Counts"]:
    """Yield what reads and writes reference counts; close it at the end."""
    counts = Counts()
    try:
        yield counts
    finally:
        counts.close()


class Counts:
    """Reads and writes the reference counts of many objects; see the module. memfd_create(2)."""

    def __init__(self) -> None:
        libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: no other thread changes counts
        self._preadv, self._pwritev = libc.preadv, libc.pwritev
        for function in (self._preadv, self._pwritev):
            function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_long]
            function.restype = ctypes.c_ssize_t
        self._ready = os.memfd_create("preforkd-counts", os.MFD_CLOEXEC)
        os.write(self._ready, array("Q", [_WRITTEN]) * _IOV_MAX)
        self._seen = os.memfd_create("preforkd-seen", os.MFD_CLOEXEC)
        os.ftruncate(self._seen, 4 * _CHUNK)
        self._view = mmap.mmap(self._seen, 4 * _CHUNK)
        self._reading, self._writing = _Vector(4), _Vector(8)

    def close(self) -> None:
        """Close the files."""
        self._view.close()
        os.close(self._seen)
        os.close(self._ready)

    def mortal(self, objects: tuple[Any, ...]) -> bytes:
        """Return a 1 for each of these objects that is mortal, else 0; at most `_CHUNK` of them."""
        self._reading.aim(objects)
        for start, count in _batches(len(objects)):
            done = self._pwritev(self._seen, self._reading.at(start), count, 4 * start)
            _check_transfer(4 * count, done)
        return self._view[: 4 * len(objects)][3::4].translate(_IS_MORTAL)

    def write(self, objects: tuple[Any, ...]) -> None:
        """Give these objects the immortal count; at most `_CHUNK` of them."""
        self._writing.aim(objects)
        for start, count in _batches(len(objects)):
            _check_transfer(8 * count, self._preadv(self._ready, self._writing.at(start), count, 0))


def _batches(length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, _IOV_MAX):
        yield start, min(_IOV_MAX, length - start)


def _check_transfer(wanted: int, done: int) -> None:
    if done != wanted:
        number = ctypes.get_errno()
        raise OSError(number, f"reference counts: {os.strerror(number)}")


class _Vector:
    """An array of iovecs (readv(2)), each of them at the beginning of an object."""

    def __init__(self, size: int) -> None:
        entries = (ctypes.c_uint64 * (2 * _CHUNK))()
        self._address = ctypes.addressof(entries)
        self._entries = memoryview(entries).cast("B").cast("Q")
        self._entries[1::2] = memoryview(array("Q", [size]) * _CHUNK)
        # All of the address space as integers: the items of a tuple are a slice of it.
        everything = (ctypes.c_uint64 * (1 << 53)).from_address(0)
        self._memory = memoryview(everything).cast("B").cast("Q")

    def aim(self, objects: tuple[Any, ...]) -> None:
        """Point the first entries at these objects."""
        items = (id(objects) + _TUPLE_ITEMS) // 8
        count = len(objects)
        self._entries[0 : 2 * count : 2] = self._memory[items : items + count]

    def at(self, index: int) -> int:
        """Return the address of an entry."""
        return self._address + 16 * index
