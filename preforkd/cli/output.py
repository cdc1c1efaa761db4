"""Standard output of the command-line programs."""

import io
import os
import sys
from collections.abc import Callable


def to_whoever_reads(command: Callable[[], int]) -> int:
    """Run a command that prints and return its status; a reader that has left (head) is no error.

    What the locale cannot write is escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
