"""Reading a file of any type and size: a FIFO, a device, an endless file.

open(2), fifo(7), poll(2)
"""

import errno
import os
import select
import time

READ_TIMEOUT = 5.0
"""Seconds within which a FIFO, a pipe or a terminal must reach its end."""
_PIECE = 1 << 16


def read_bounded(path: str, limit: int, timeout: float = READ_TIMEOUT) -> bytes:
    """Return the content of a file, at most ``limit`` bytes of it.

    Raises OSError: TimeoutError if there is no end of file within ``timeout`` seconds. It does not bound
    the time that a disk or a file server takes.
    """
    deadline = time.monotonic() + timeout
    # Without O_NONBLOCK, the open of a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        # A FIFO without a writer reads as an empty file, but polls as one without data.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        data = bytearray()
        while len(data) < limit:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(errno.ETIMEDOUT, f"no end of file within {timeout:g} s")
            piece = os.read(descriptor, min(_PIECE, limit - len(data)))
            if not piece:
                break
            data += piece
        return bytes(data)
    finally:
        os.close(descriptor)
