"""The process title that ps, systemd-cgls and systemctl status show.

The kernel shows the memory that held the command line when the program was executed; it is
overwritten. proc(5): /proc/pid/cmdline, /proc/pid/stat (arg_start, arg_end)
"""

import contextlib
import ctypes

_PR_SET_NAME = 15
_COMM = b"preforkd"
# Kept: each CDLL creates classes, and a worker would create them at each change of its title.
_libc = ctypes.CDLL(None)


class Title:
    """The title of this process and, after a fork, of the child's own copy."""

    def __init__(self) -> None:
        self._start, self._room = _area()
        self._shown: str | None = None

    def set(self, text: str) -> None:
        """Set the title, cut to the length of the command line. Never raises.

        An unchanged title is free: the master sets it in each turn of its loop.
        """
        if self._room < 2 or text == self._shown:
            return
        self._shown = text
        data = text.encode("utf-8", "replace")[: self._room - 1]
        ctypes.memmove(self._start, data.ljust(self._room, b"\0"), self._room)
        _name_process()


def _area() -> tuple[int, int]:
    # The name in parentheses may contain anything: count the fields after it.
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as stat, open("/proc/self/cmdline", "rb") as line:
            fields = stat.read().rpartition(b")")[2].split()
            length = len(line.read())
        start, end = int(fields[45]), int(fields[46])
        if 0 < start < end and end - start == length:
            return start, end - start
    return 0, 0


def _name_process() -> None:
    with contextlib.suppress(OSError, AttributeError):
        _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(_COMM), 0, 0, 0)
