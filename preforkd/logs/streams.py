"""Standard input, output and error, as they may be found: closed, or read by nobody.

posix_spawn(3), poll(2), pipe(7)
"""

import os
import select
import stat
import sys

_PIECE = select.PIPE_BUF
"""Bytes that a pipe which is said to be writable takes without blocking."""


def open_closed() -> None:
    """Open /dev/null wherever one of the three is closed.

    Otherwise the next socket would get its number, and what somebody prints would be sent to a client.
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


def write_patiently(descriptor: int, data: bytes, patience: float) -> bool:
    """Write, and give whoever reads so many seconds for each piece; False: not all was taken.

    To a file in one piece, so that lines of several processes do not mix. Raises OSError.
    """
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.write(descriptor, data)
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    for start in range(0, len(data), _PIECE):
        if not poll.poll(patience * 1000):
            return False
        os.write(descriptor, data[start : start + _PIECE])
    return True
