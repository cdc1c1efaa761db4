"""Holes: free blocks between objects that live, filled before the fork.

CPython's allocator divides pools of memory into blocks of one size, and takes what is free in pools
that are partly used first (Objects/obmalloc.c). After an application has been loaded, many pools have
a few free blocks each: what a worker then creates would lie here and there on pages that it shares,
and copy each. With the holes filled, it creates its objects side by side on pages of its own. What is larger
than 512 bytes lies in malloc(3)'s heap, whose holes are filled likewise, where they are smaller than a page.
"""

import os
import sys
from collections.abc import Callable

_POOL = 16 * 1024
_HEADER = 48
"""Bytes of a pool before its first block."""
_SIZES = range(16, 512 + 1, 16)
_BATCH = 256
_RUN = 16
"""Blocks side by side, from a pool's first one on, that tell a new pool."""
_MOST = 256
"""Batches of one size after which it is given up: this allocator is not the one that is known."""

_CHUNKS = (4096, 2048, 1536, 1024, 768, 640, 576, 528)
"""Sizes of malloc's chunks that are tried; smaller ones are for pymalloc."""
_ADJACENT = 16
"""Chunks one after the other that tell a large hole: its pages are given back, and none of them is shared."""
_MOST_CHUNKS = 16384

_fillings: list[list[object]] = []


def fill_free_blocks() -> int:
    """Fill the holes and return how many bytes that took; what fills them stays.

    May be called again: what filled holes before is let go first, so that it does not add up, but for
    some pools each time (70 KB with CPython 3.13). Does nothing where another allocator is in use.
    """
    _fillings.clear()
    if os.environ.get("PYTHONMALLOC", "pymalloc") != "pymalloc" or sys.flags.dev_mode:
        return 0
    return sum(size * _fill(_maker(size), size) for size in _SIZES) + sum(
        map(_fill_chunks, _CHUNKS)
    )


def _maker(size: int) -> Callable[[int], object]:
    # Objects that refer to nothing, which the collector does not know.
    if size == 16:
        return lambda _number: object()
    if size == 32:
        return lambda number: number + 0.5
    rest = size - sys.getsizeof(b"")
    return lambda _number: bytes(rest)


def _fill(make: Callable[[int], object], size: int) -> int:
    filling: list[object] = []
    for _ in range(_MOST):
        batch = [make(number) for number in range(_BATCH)]
        new = _new_pool(list(map(id, batch)), size)
        filling += batch[:new]
        if new is not None:
            _fillings.append(filling)
            return len(filling)
    return 0


def _new_pool(addresses: list[int], size: int) -> int | None:
    """Return where a pool begins that was unused before, which is when there are no holes left."""
    run = min(_RUN, (_POOL - _HEADER) // size)
    for index in range(len(addresses) - run):
        first = addresses[index]
        if first % _POOL == _HEADER:
            side_by_side = list(range(first, first + run * size, size))
            if addresses[index : index + run] == side_by_side:
                return index
    return None


def _fill_chunks(size: int) -> int:
    """Fill holes of malloc's that take a chunk of this size; return how many bytes that took.

    Ends where chunks come side by side, which is in a large hole or beyond the last chunk.
    """
    length = size - 8 - sys.getsizeof(b"")  # 8: malloc's own
    filling: list[object] = []
    run = 0
    last = 0
    while run < _ADJACENT and len(filling) < _MOST_CHUNKS:
        filling.append(bytes(length))
        address = id(filling[-1])
        run = run + 1 if address - last == size else 0
        last = address
    del filling[len(filling) - run - 1 :]
    _fillings.append(filling)
    return size * len(filling)
