"""Run work that would block the master's loop in a thread."""

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import NoReturn, TypeVar

from preforkd.loop import Loop

Result = TypeVar("Result")


def run_in_thread(
    loop: Loop,
    name: str,
    work: Callable[[], Result],
    done: Callable[[Callable[[], Result]], None],
) -> None:
    """Run ``work`` in a daemon thread of this name, then call ``done`` in the loop.

    ``done`` gets a function that returns what the work returned, or raises what it raised. ``done`` is not
    called if the loop has been closed meanwhile; a process that exits does not wait for the work. If the
    system grants no thread, the work is run at once and blocks the loop.
    """

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            schedule(partial(_raise, error))
        else:
            schedule(lambda: result)

    def schedule(outcome: Callable[[], Result]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done, outcome)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:
        run()  # the system grants no thread


def _raise(error: Exception) -> NoReturn:
    raise error
