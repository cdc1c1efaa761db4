"""Memory: the usage of a process, notification of memory pressure, and freeing what is not needed.

proc(5), smaps_rollup; systemd.exec(5), MEMORY_PRESSURE_WATCH (254 and newer); the kernel's
documentation of PSI
"""

import binascii
import contextlib
import ctypes
import errno
import gc
import os
import select
import stat
from collections.abc import Mapping

from msgspec import Struct


class Usage(Struct, frozen=True):
    """A process's memory in bytes.

    ``private`` (USS) is memory of this process alone, ``pss`` adds its share of shared pages.
    ``anonymous`` is memory that is not in a file, shared or not: what the process would use without a fork.
    ``pss_files`` is its share of files, None if the kernel does not report it (before 5.9).
    """

    rss: int
    pss: int
    private: int
    anonymous: int
    pss_files: int | None

    @property
    def shared(self) -> int:
        """Return the bytes that other processes map, too."""
        return self.rss - self.private


def usage(pid: int | str = "self") -> Usage:
    """Return the memory of a process.

    Raises ProcessLookupError if there is no such process, PermissionError if it is another
    user's, and OSError where there is no /proc or the kernel has no smaps_rollup.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            text = file.read()
    except FileNotFoundError as error:
        if os.path.exists(f"/proc/{pid}/stat") or not os.path.exists("/proc/self/stat"):
            raise
        raise ProcessLookupError(error.errno, f"there is no process {pid}") from error
    sizes = {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in text.decode().splitlines()[1:])
    }
    if "Rss" not in sizes:  # a zombie
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
    parts = ("Private_Clean", "Private_Dirty", "Private_Hugetlb")
    files = sizes["Pss_File"] + sizes["Pss_Shmem"] if "Pss_File" in sizes else None
    return Usage(
        rss=sizes["Rss"],
        pss=sizes["Pss"],
        private=sum(sizes.get(part, 0) for part in parts),
        anonymous=sizes["Anonymous"],
        pss_files=files,
    )


def trim() -> None:
    """Collect garbage, and return free pages of the heap to the kernel."""
    gc.collect()
    release_free()


def release_free() -> None:
    """Return free pages of the heap to the kernel. malloc_trim(3)."""
    with contextlib.suppress(OSError, AttributeError):  # not in every libc
        ctypes.CDLL(None).malloc_trim(0)


class PressureWatch:
    """Watches for memory pressure: `fileno` is readable on pressure, until `acknowledge`."""

    def __init__(self, path: str, order: bytes) -> None:
        """Open the file that systemd names and write its order. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # A PSI file signals EPOLLPRI; a FIFO (of a test, a container manager) has data.
            self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            if order:
                os.write(self._descriptor, order)
            # An epoll can be polled itself: the loop need not handle EPOLLPRI.
            self._epoll = select.epoll()
            events = select.EPOLLPRI if self._regular else select.EPOLLIN
            self._epoll.register(self._descriptor, events)
        except OSError:
            os.close(self._descriptor)
            raise

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "PressureWatch | None":
        """Return the watch that systemd offers; None if there is none or it cannot be opened."""
        path = environ.get("MEMORY_PRESSURE_WATCH", "")
        if not path.startswith("/") or path == "/dev/null":
            return None
        with contextlib.suppress(OSError, ValueError):
            return cls(path, binascii.a2b_base64(environ.get("MEMORY_PRESSURE_WRITE", "")))
        return None

    def fileno(self) -> int:
        """Return the descriptor to wait on for reading."""
        return self._epoll.fileno()

    def acknowledge(self) -> None:
        """Clear the notification."""
        self._epoll.poll(0)
        if not self._regular:
            with contextlib.suppress(BlockingIOError):
                os.read(self._descriptor, 4096)

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()
        os.close(self._descriptor)
