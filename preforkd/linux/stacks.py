"""The stacks of a process's threads, written on a signal, whatever the process is doing.

The signal is a real-time one, which applications do not use, and which nobody sends by accident. The
kernel gives it to the main thread, whose own stack a handler in C writes at once: even while the GIL is
held. The stacks of other threads change under the eyes of such a handler while they run, and it would
crash then; they are written by a handler in Python, as soon as the main thread gets to it: at once where
it waits for events, as it does while other threads have the requests.
faulthandler's documentation; signal(7)
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SIGNAL = signal.SIGRTMIN + 9
_DEPTH = 100
"""Calls of one thread that are told, as faulthandler does."""


def write_on_signal(descriptor: int) -> None:
    """Write the stacks to this descriptor, which stays open, whenever `SIGNAL` comes; in the main thread."""

    def write_others(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(descriptor, "".join(_others()).encode("utf-8", "backslashreplace"))

    signal.signal(SIGNAL, write_others)
    faulthandler.register(SIGNAL, file=descriptor, all_threads=False, chain=True)


def _others() -> Iterator[str]:
    for thread, frame in sys._current_frames().items():
        if thread != threading.get_ident():
            yield f"Thread {thread:#018x} (most recent call first):\n"
            yield from _calls(frame)


def _calls(frame: FrameType | None) -> Iterator[str]:
    for _ in range(_DEPTH):
        if frame is None:
            return
        code = frame.f_code
        yield f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}\n'
        frame = frame.f_back
    yield "  ...\n"


def write_no_more() -> None:
    """Ignore `SIGNAL` from now on."""
    signal.signal(SIGNAL, signal.SIG_IGN)
    faulthandler.unregister(SIGNAL)
    signal.signal(SIGNAL, signal.SIG_IGN)
