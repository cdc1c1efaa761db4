"""Exceptions that the application raises outside its requests.

A signal handler of the application (of an alarm, mostly) runs in the main thread when the signal arrives:
between requests too, in the middle of the worker's own code. An exception that it raises there belongs to no
request. The worker logs it and retires: the requests that it holds are answered first.
"""

import logging
import os
import sys

from preforkd.worker.acceptor import Acceptor

logger = logging.getLogger("preforkd.app")

_OURS = {
    "preforkd",
    "__main__",
    "uvloop",
    "websockets",
    "msgspec",
}


def comes_from_application(error: BaseException) -> bool:
    """Return whether the application raised this; true for SystemExit and the like, wherever raised."""
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
    """Log an exception that the application raised outside its requests, and retire the worker."""
    logger.error(
        "the application raised an exception outside a request (in a signal handler?); "
        "the worker answers the requests that it holds, and exits",
        exc_info=error,
    )
    acceptor.retire()


def retire_if_interrupted(error: BaseException, acceptor: Acceptor, pid: int) -> None:
    """Retire the worker if the application raised this; raise it again if not.

    ``pid`` is the worker's: in a child that the application forked, the exception is raised again.
    """
    if os.getpid() != pid or not comes_from_application(error):
        raise error
    retire_after(error, acceptor)
