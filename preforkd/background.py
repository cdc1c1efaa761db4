"""Work that would keep the master's loop from its other work, done beside it in a thread."""

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
    """Do the work in a thread of this name, then call ``done`` in the loop.

    What ``done`` is given returns what the work returned, or raises what it raised. A loop that has
    been closed meanwhile does not hear of it, and a process that ends does not wait for it. Where the
    system grants no thread, the loop waits.
    """

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            hear(partial(_raise, error))
        else:
            hear(lambda: result)

    def hear(outcome: Callable[[], Result]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(done, outcome)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:
        run()  # the system grants no thread: late is better than never


def _raise(error: Exception) -> NoReturn:
    raise error
