"""Standard output of the command-line programs."""

import io
import os
import sys
from collections.abc import Callable


def run_printing(command: Callable[[], int]) -> int:
    """Run a command that prints; return its exit status, or 0 if the reader closed the pipe (head).

    Characters that the locale cannot encode are escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The rest of the buffer would fail again when the interpreter flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
