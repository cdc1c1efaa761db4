"""Padding: free blocks between live objects are filled before the fork.

CPython's allocator divides pools of memory into blocks of one size and uses the free blocks of partly used
pools first (Objects/obmalloc.c).  After an application has been loaded, many pools have a few free blocks: the
objects that a worker creates would be scattered over shared pages and copy each.  With these blocks filled, a
worker allocates its objects in new pools, on pages of its own.  Objects of more than 512 bytes are in the heap
of malloc(3), whose free chunks are filled as well, where they are smaller than a page.
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
"""Adjacent blocks, from a pool's first one on, by which a new pool is recognised."""
_MAX_BATCHES = 256
"""Batches of one size after which filling stops: the allocator is not the one described above."""

_CHUNKS = (4096, 2048, 1536, 1024, 768, 640, 576, 528)
"""Sizes of malloc's chunks that are filled; smaller objects are in pools."""
_ADJACENT = 16
"""Adjacent chunks by which a large free area is recognised: its pages go back to the kernel."""
_MAX_CHUNKS = 16384

_fillers: list[list[object]] = []


def fill_free_blocks() -> int:
    """Fill free blocks with objects that stay, and return their size in bytes.

    May be called again: the objects of the previous call are freed first, so that they do not accumulate, except
    for some pools each time (70 KB with CPython 3.13). Does nothing if another allocator is in use.
    """
    _fillers.clear()
    if os.environ.get("PYTHONMALLOC", "pymalloc") != "pymalloc" or sys.flags.dev_mode:
        return 0
    return sum(size * _fill_pools(_maker(size), size) for size in _SIZES) + sum(
        map(_fill_chunks, _CHUNKS)
    )


def _maker(size: int) -> Callable[[int], object]:
    # Objects without references, which the collector does not track.
    if size == 16:
        return lambda _number: object()
    if size == 32:
        return lambda number: number + 0.5
    rest = size - sys.getsizeof(b"")
    return lambda _number: bytes(rest)


def _fill_pools(make: Callable[[int], object], size: int) -> int:
    filler: list[object] = []
    for _ in range(_MAX_BATCHES):
        batch = [make(number) for number in range(_BATCH)]
        new = _new_pool(list(map(id, batch)), size)
        filler += batch[:new]
        if new is not None:
            _fillers.append(filler)
            return len(filler)
    return 0


def _new_pool(addresses: list[int], size: int) -> int | None:
    """Return the index at which a new pool begins, None if there is none: free blocks are left."""
    run = min(_RUN, (_POOL - _HEADER) // size)
    for index in range(len(addresses) - run):
        first = addresses[index]
        if first % _POOL == _HEADER:
            side_by_side = list(range(first, first + run * size, size))
            if addresses[index : index + run] == side_by_side:
                return index
    return None


def _fill_chunks(size: int) -> int:
    """Fill free areas of malloc's heap with chunks of this size; return the bytes that were filled.

    Stops when chunks become adjacent: in a large free area, or beyond the last chunk.
    """
    length = size - 8 - sys.getsizeof(b"")  # 8: the header of a chunk
    filler: list[object] = []
    run = 0
    last = 0
    while run < _ADJACENT and len(filler) < _MAX_CHUNKS:
        filler.append(bytes(length))
        address = id(filler[-1])
        run = run + 1 if address - last == size else 0
        last = address
    del filler[len(filler) - run - 1 :]
    _fillers.append(filler)
    return size * len(filler)
