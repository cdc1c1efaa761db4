"""What the application prints, as journal entries that name the process that printed it.

`install` replaces `sys.stdout` and `sys.stderr` in the zygote, before the application is loaded: a
handler of logging that the application creates keeps the stream, and the stream looks up the process's fields
at each line, so that the same handler logs for the zygote first and for a worker after the fork.  What code
in C, or a program that the application starts, writes to the descriptors 1 and 2 does not pass here: the master
reads it from a pipe (`preforkd.supervisor.child_output`).
"""

import io
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from preforkd.core.text import printable_lines
from preforkd.logs import sender
from preforkd.logs.context import IDENTIFIER, journal_fields, priority
from preforkd.logs.journal import encoded


class EntryLines:
    """Splits written text into lines and makes an encoded journal entry of each.

    ``fields`` returns the journal fields of the writer, ``submit`` receives each entry.  The priority of a
    line is ``level``, or its prefix: ``<3>``, as in sd-daemon(3).
    """

    LIMIT = 48 * 1024
    """Characters after which a line is cut, as LineMax= of journald.conf(5) does."""

    def __init__(
        self,
        level: int,
        fields: Callable[[], Mapping[str, object]],
        submit: Callable[[bytes], object],
    ) -> None:
        self._submit = submit
        self._priority = priority(level)
        self._fields = fields
        self._unfinished = ""

    def write(self, text: str) -> None:
        """Add text; each line that it completes is submitted."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._submit_line(line)
        while len(self._unfinished) > self.LIMIT:
            self._submit_line(self._unfinished[: self.LIMIT])
            self._unfinished = self._unfinished[self.LIMIT :]

    def flush(self) -> None:
        """Submit the unfinished line."""
        line, self._unfinished = self._unfinished, ""
        self._submit_line(line)

    def _submit_line(self, line: str) -> None:
        number, line = self._priority, line.rstrip()
        if line[:1] == "<" and line[1:2] in tuple("01234567") and line[2:3] == ">":
            number, line = int(line[1]), line[3:]
        if not line:
            return
        fields = {
            "MESSAGE": printable_lines(line),
            "PRIORITY": number,
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            **self._fields(),
        }
        self._submit(encoded(fields))


class _CapturedBytes(io.RawIOBase):
    """The ``buffer`` of a `_CapturedStream`, for applications that write bytes."""

    def __init__(self, stream: "_CapturedStream") -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)


class _CapturedStream(io.TextIOBase):
    """Standard output or standard error; each line becomes an entry."""

    def __init__(self, level: int, descriptor: int) -> None:
        self._lines = EntryLines(level, journal_fields, lambda entry: sender.own().submit(entry))
        self._descriptor = descriptor
        # Reentrant: a signal handler may print while the code that it interrupts does.
        self._lock = threading.RLock()
        self.buffer = _CapturedBytes(self)
        self.mode = "w"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def reconfigure(self, **_options: object) -> None:
        """Do nothing, for applications that set another encoding."""

    def write(self, text: str) -> int:
        with self._lock:
            self._lines.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._lines.flush()


def install() -> None:
    """Send what this process and its forks print in Python to the journal, with the fields of the process.

    Call it only where records go to the journal, too.
    """
    sys.stdout = _CapturedStream(logging.INFO, 1)
    sys.stderr = _CapturedStream(logging.WARNING, 2)
