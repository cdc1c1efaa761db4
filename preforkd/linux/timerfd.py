"""Timers as descriptors: a thread waits for one, and another thread moves it without waking the first.

timerfd_create(2); Python has it since 3.13.
"""

import ctypes
import os
import time

from preforkd.linux.libc import LIBC, checked


class _Timerspec(ctypes.Structure):
    """struct itimerspec: the interval, and the time until the timer expires."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class Timer:
    """A timer that expires once; the monotonic clock. Raises OSError."""

    def __init__(self) -> None:
        self._descriptor = checked(LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC))

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def arm(self, seconds: float) -> None:
        """Let the timer expire in this time from now, and not before; in any thread. More than 0."""
        spec = _Timerspec(0, 0, int(seconds), int(seconds % 1 * 1e9))
        checked(LIBC.timerfd_settime(self._descriptor, 0, ctypes.byref(spec), None))

    def wait(self) -> None:
        """Wait until the timer has expired."""
        os.read(self._descriptor, 8)

    def close(self) -> None:
        """Close the descriptor; no thread may wait."""
        os.close(self._descriptor)
