"""Standard output of the command-line programs."""

import io
import os
import sys
from collections.abc import Callable, Iterable


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


def exit_statuses(meanings: Iterable[tuple[int, str]]) -> str:
    """Return the section of a help text that lists exit statuses; those without a meaning are left out."""
    rows = "".join(f"  {status:<3} {meaning}\n" for status, meaning in meanings if meaning)
    return f"exit statuses:\n{rows}"
