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

import ctypes
import gc
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

from preforkd.linux import memory

COUNT = 0xFFFFFFFF
"""The reference count of an immortal object: CPython 3.12 and 3.13, 64 bits (Include/object.h)."""
TESTED = ((3, 12), (3, 13))
"""The versions with which this was tested; 3.14 has another layout."""

_IOV_MAX = 1024
_CHUNK = 64 * _IOV_MAX
"""Objects whose counts are read or written together."""
_BATCH = 16 * 1024
"""Containers whose referents are requested together."""
_HAVE_GC = 1 << 14
"""Py_TPFLAGS_HAVE_GC (Include/object.h)."""
_IS_MORTAL = b"\0".rjust(256, b"\1")
"""Translates the count's highest byte to whether the object is mortal: 0xFF is immortal."""


def unsupported_reason() -> str:
    """Return why this interpreter's heap cannot be made immortal; empty if it can."""
    return next(_unsupported_reasons(), "")


def _unsupported_reasons() -> Iterator[str]:
    name = sys.implementation.name
    version = ".".join(map(str, sys.version_info[:3]))
    known = ", ".join(f"{major}.{minor}" for major, minor in TESTED)
    if name != "cpython":
        yield f"it needs CPython, this is {name}"
    if sys.version_info < (3, 12):
        yield f"it needs CPython 3.12 or later, this is {version}, which has no immortal objects"
    if sys.version_info[:2] not in TESTED:
        yield f"it was not tested with CPython {version}, only with {known}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        yield "this CPython is free-threaded, and counts references in another way"
    if hasattr(sys, "gettotalrefcount") or hasattr(sys, "getobjects"):
        yield "this is a debug build of CPython, which counts all references"
    if (object.__basicsize__, tuple.__basicsize__, sys.byteorder) != (16, 24, "little"):
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
    and all are frozen afterwards. Raises OSError.
    """
    gc.unfreeze()
    known = gc.get_objects()
    gc.freeze()
    with _counts() as counts:
        traversal = _Traversal(counts)
        for start in range(0, len(known), _CHUNK):
            traversal.mark(tuple(known[start : start + _CHUNK]))
        while known:
            batch = known[-_BATCH:]
            del known[-_BATCH:]
            traversal.follow(batch)
        return traversal.marked


class _Traversal:
    """The traversal of the heap; ``marked`` is the number of objects that it made immortal."""

    def __init__(self, counts: "_Counts") -> None:
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
def _counts() -> Iterator["_Counts"]:
    counts = _Counts()
    try:
        yield counts
    finally:
        counts.close()


class _Counts:
    """Reads and writes the reference counts of many objects; see the module. memfd_create(2)."""

    def __init__(self) -> None:
        libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: no other thread changes counts
        self._preadv, self._pwritev = libc.preadv, libc.pwritev
        for function in (self._preadv, self._pwritev):
            function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_long]
            function.restype = ctypes.c_ssize_t
        self._ready = os.memfd_create("preforkd-counts", os.MFD_CLOEXEC)
        os.write(self._ready, array("Q", [COUNT]) * _IOV_MAX)
        self._seen = os.memfd_create("preforkd-seen", os.MFD_CLOEXEC)
        os.ftruncate(self._seen, 4 * _CHUNK)
        self._view = mmap.mmap(self._seen, 4 * _CHUNK)
        self._reading, self._writing = _Vector(4), _Vector(8)

    def close(self) -> None:
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
        items = (id(objects) + tuple.__basicsize__) // 8
        count = len(objects)
        self._entries[0 : 2 * count : 2] = self._memory[items : items + count]

    def at(self, index: int) -> int:
        """Return the address of an entry."""
        return self._address + 16 * index


# --- self-test ------------------------------------------------------------------------------------


_TEST_OBJECTS = 8192
"""Floats that are used: 32 bytes each, 64 pages in total."""


def self_test() -> str:
    """Test immortality in a forked child: return why it does not work here, empty if it does.

    A child of that child uses as many immortal as mortal objects; the counts of the immortal ones must not
    change, and their pages must stay shared. `unsupported_reason` must be empty. Raises OSError.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            verdict = _verify()
        except BaseException as error:
            verdict = repr(error)
        os.write(write, (verdict or "holds").encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8", errors="replace") as answers:
        verdict = answers.read()
    _, status = os.waitpid(child, 0)
    if not verdict:
        return f"the process of the self-test ended with {os.waitstatus_to_exitcode(status)}"
    return "" if verdict == "holds" else verdict


def _verify() -> str:
    gc.disable()
    immortal, mortal = ([float(number) for number in range(_TEST_OBJECTS)] for _ in range(2))
    others = [
        object(),
        f"text {os.getpid()}",
        {"key": 1},
        (immortal, 2),
        _verify,
        type("New", (), {}),
    ]
    with _counts() as counts:
        counts.write(tuple(immortal))
        counts.write(tuple(others))
        if any(counts.mortal(tuple(others))) or not all(counts.mortal(tuple(mortal))):
            return "reference counts do not have the value that was written"
    child = os.fork()
    if child == 0:
        os._exit(_use_and_measure(immortal, mortal, others))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return _VERDICTS.get(code, f"a process that used immortal objects ended with {code}")


_VERDICTS = {
    0: "",
    3: "the reference counts of immortal objects change",
    4: "pages with immortal objects are written to when the objects are used",
}


def _use_and_measure(immortal: list[Any], mortal: list[Any], others: list[Any]) -> int:
    objects = [*immortal, *others]
    # Pages that any first use copies are copied by using the few objects, twice.
    private = [_private_after_using(each) for each in (others, others, immortal, mortal)]
    copies = [list(objects) for _ in range(3)]
    copies.clear()
    if any(sys.getrefcount(one) != COUNT for one in objects):
        return 3
    by_immortal, by_mortal = private[2] - private[1], private[3] - private[2]
    return 4 if by_immortal * 4 > by_mortal else 0


def _private_after_using(objects: list[Any]) -> int:
    for _object in objects:
        pass
    return memory.usage().private
