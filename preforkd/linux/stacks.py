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
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

SIGNAL = signal.SIGRTMIN + 9
END = b"\0"
"""What is written last; it does not come while the main thread is held up in C."""
_DEPTH = 100
"""Calls of one thread that are told, as faulthandler does."""


_more: Callable[[], Iterable[str]] = tuple


def write_on_signal(descriptor: int) -> None:
    """Write the stacks to this descriptor, which stays open, whenever `SIGNAL` comes; in the main thread.

    A second call replaces the descriptor.
    """

    def write_others(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(Exception):
            text = "".join((*_others(), *_more()))
            os.write(descriptor, text.encode("utf-8", "backslashreplace") + END)

    # Registered while it is registered, it would not be called any more.
    faulthandler.unregister(SIGNAL)
    signal.signal(SIGNAL, write_others)
    faulthandler.register(SIGNAL, file=descriptor, all_threads=False, chain=True)


def append(more: Callable[[], Iterable[str]]) -> None:
    """Write what this returns behind the stacks; it is called in the main thread, within any other call."""
    global _more  # noqa: PLW0603
    _more = more


def _others() -> Iterator[str]:
    for number, frame in sys._current_frames().items():
        if number != threading.get_ident():
            # Not by enumerate(), whose lock the interrupted main thread may have.
            thread = sys.modules["threading"]._active.get(number)
            name = f" {thread.name}" if thread is not None else ""
            yield f"Thread {number:#018x}{name} (most recent call first):\n"
            yield from calls(frame)


def calls(frame: FrameType | None) -> Iterator[str]:
    """Yield a line for each call, from this one outwards."""
    for _ in range(_DEPTH):
        if frame is None:
            return
        code = frame.f_code
        yield f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}\n'
        frame = frame.f_back
    yield "  ...\n"


def disable() -> None:
    """Ignore `SIGNAL` from now on."""
    signal.signal(SIGNAL, signal.SIG_IGN)
    faulthandler.unregister(SIGNAL)
    signal.signal(SIGNAL, signal.SIG_IGN)
