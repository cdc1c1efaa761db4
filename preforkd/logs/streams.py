"""Standard input, output and error, which may be closed, or never read.

posix_spawn(3), poll(2), pipe(7)
"""

import os
import select
import stat
import sys

_PIECE = select.PIPE_BUF
"""Bytes that a pipe takes without blocking once poll(2) reports it as writable."""


def open_closed() -> None:
    """Open /dev/null in place of each of the three that is closed.

    Otherwise the next socket would get its number, and what the application prints would be sent to a client.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def write_with_timeout(descriptor: int, data: bytes, timeout: float) -> bool:
    """Write all, waiting up to ``timeout`` seconds for each piece; return False if not all was written.

    To a regular file in one write, so that lines of several processes do not mix. Raises OSError.
    """
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.write(descriptor, data)
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    for start in range(0, len(data), _PIECE):
        if not poll.poll(timeout * 1000):
            return False
        os.write(descriptor, data[start : start + _PIECE])
    return True
