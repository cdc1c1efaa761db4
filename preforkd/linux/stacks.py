"""The stacks of a process's threads, written on a signal, in whatever state the process is.

It is a real-time signal, which applications hardly use and no tool sends by default.  The kernel delivers it to
the main thread, whose stack a handler in C writes at once, even while another thread holds the GIL.  That
handler must not read the stacks of other threads, which change while they run; a handler in Python writes these
as soon as the main thread executes bytecode: at once if it waits for events, as it does while other threads
have the requests. faulthandler's documentation; signal(7)
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
"""Written last; it is missing while the main thread is blocked in C."""
_DEPTH = 100
"""Calls of one thread that are written, as faulthandler does."""


_additional: Callable[[], Iterable[str]] = tuple


def write_on_signal(descriptor: int) -> None:
    """Write the stacks to this descriptor, which stays open, whenever `SIGNAL` comes; in the main thread.

    A second call replaces the descriptor.
    """

    def write_others(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(Exception):
            text = "".join((*_others(), *_additional()))
            os.write(descriptor, text.encode("utf-8", "backslashreplace") + END)

    # A second registration without this would disable the handler.
    faulthandler.unregister(SIGNAL)
    signal.signal(SIGNAL, write_others)
    faulthandler.register(SIGNAL, file=descriptor, all_threads=False, chain=True)


def append(lines: Callable[[], Iterable[str]]) -> None:
    """Write these lines after the stacks; called in the main thread, at any point of its execution."""
    global _additional  # noqa: PLW0603
    _additional = lines


def _others() -> Iterator[str]:
    for number, frame in sys._current_frames().items():
        if number != threading.get_ident():
            # Not by enumerate(), whose lock the interrupted main thread may hold.
            thread = sys.modules["threading"]._active.get(number)
            name = f" {thread.name}" if thread is not None else ""
            yield f"Thread {number:#018x}{name} (most recent call first):\n"
            yield from calls(frame)


def calls(frame: FrameType | None) -> Iterator[str]:
    """Yield a line for each call, the innermost first."""
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
