"""Memory: being told when it is short, and giving back what is not needed.

systemd.exec(5), MEMORY_PRESSURE_WATCH (254 and newer); the kernel's documentation of PSI
"""

import base64
import contextlib
import ctypes
import gc
import os
import select
import stat
from collections.abc import Mapping


def trim() -> None:
    """Collect garbage, and give free pages of the heap back to the kernel."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another libc has none
        ctypes.CDLL(None).malloc_trim(0)


class PressureWatch:
    """Tells when memory is short; readable (`fileno`) when it is, until `take` is called."""

    def __init__(self, path: str, order: bytes) -> None:
        """Open what systemd names and write what it says. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # A PSI file has an event, a FIFO (a test, a container manager) has data.
            self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            if order:
                os.write(self._descriptor, order)
            # An epoll is itself pollable: whoever waits for it need not know of EPOLLPRI.
            self._epoll = select.epoll()
            events = select.EPOLLPRI if self._regular else select.EPOLLIN
            self._epoll.register(self._descriptor, events)
        except OSError:
            os.close(self._descriptor)
            raise

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "PressureWatch | None":
        """Return the watch that systemd offers; None if it offers none or it cannot be had."""
        path = environ.get("MEMORY_PRESSURE_WATCH", "")
        if not path.startswith("/") or path == "/dev/null":
            return None
        with contextlib.suppress(OSError, ValueError):
            return cls(path, base64.b64decode(environ.get("MEMORY_PRESSURE_WRITE", "")))
        return None

    def fileno(self) -> int:
        """Return the descriptor to wait on for reading."""
        return self._epoll.fileno()

    def take(self) -> None:
        """Take note of what has happened."""
        self._epoll.poll(0)
        if not self._regular:
            with contextlib.suppress(BlockingIOError):
                os.read(self._descriptor, 4096)

    def close(self) -> None:
        """Watch no more."""
        self._epoll.close()
        os.close(self._descriptor)
