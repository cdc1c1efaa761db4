"""Exceptions of the application that come while it has no request.

A handler that it has set for a signal (an alarm, mostly) runs in the main thread whenever the signal comes:
also between requests, in the middle of the worker's own work. What it raises there is nobody's answer. The
worker logs it, accepts no more, and finishes what it has.
"""

import logging
import os
import sys

from preforkd.worker.acceptor import Acceptor

logger = logging.getLogger("preforkd.app")

_OURS = {
    "preforkd",
    "__main__",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "wsproto",
    "msgspec",
}


def comes_from_application(error: BaseException) -> bool:
    """Tell whether code of the application has raised this, or an exception that ends a program has been."""
    if not isinstance(error, Exception):
        return True
    traceback = error.__traceback__
    while traceback is not None:
        package = str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _OURS and package not in sys.stdlib_module_names:
            return True
        traceback = traceback.tb_next
    return False


def retire_after(error: BaseException, acceptor: Acceptor) -> None:
    """Log what the application raised outside its requests, and have the worker leave."""
    logger.error(
        "the application raised an exception outside a request (a signal handler of its own?); "
        "the worker finishes what it has and leaves",
        exc_info=error,
    )
    acceptor.retire()


def retire_if_interrupted(error: BaseException, acceptor: Acceptor, pid: int) -> None:
    """Have the worker leave if the application has raised this; raise it again if not.

    ``pid`` is the worker's: a child that the application forked, and that came back, is ended by it.
    """
    if os.getpid() != pid or not comes_from_application(error):
        raise error
    retire_after(error, acceptor)
