"""The handlers of logging that preforkd installs: native journal entries, or lines on standard error."""

import contextlib
import logging
import os
import time

from preforkd.core.text import printable_lines
from preforkd.logs import sender
from preforkd.logs.context import IDENTIFIER, is_worker, journal_fields, message_prefix, priority
from preforkd.logs.journal import encoded, stderr_is_journal
from preforkd.logs.streams import write_with_timeout

STDERR_TIMEOUT = 1.0
"""Seconds for which a reader of standard error may block a process."""


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(message_prefix() + super().format(record))


class StandardError:
    """Standard error, written without blocking for long; its reader gets ``timeout`` seconds, once.

    After a write that failed, the next ones do not wait until one succeeds.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lost = 0

    def write(self, text: str) -> bool:
        """Write lines; return whether all were written. If not, they are counted as lost."""
        timeout = 0.0 if self._lost else self._timeout
        if self._lost:
            text = f"({self._lost} lines were lost here: they could not be written)\n{text}"
        written = False
        with contextlib.suppress(OSError):
            written = write_with_timeout(2, text.encode("utf-8", "backslashreplace"), timeout)
        self._lost = 0 if written else self._lost + 1
        return written


class JournalHandler(logging.Handler):
    """Sends native entries; `preforkd.logs.logs.configure` explains what happens if the journal takes none."""

    def __init__(self) -> None:
        super().__init__()
        self._fallback = StandardError(0.0)
        self.setFormatter(_Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            message = self.format(record)
            own = sender.own()
            try:
                own.send(encoded(_entry(record, message)))
            except OSError as error:
                # A worker's standard error is read by the master, which sends it to the same journal.
                use_fallback = not (is_worker() and isinstance(error, BlockingIOError))
                if not (use_fallback and self._fallback.write(_with_priority(record, message))):
                    own.count_lost(1)
        except Exception:  # logging must not raise in what it reports about
            self.handleError(record)


def _entry(record: logging.LogRecord, message: str) -> dict[str, object]:
    return {
        "MESSAGE": message,
        "PRIORITY": priority(record.levelno),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
        **journal_fields(),
        **getattr(record, "journal", {}),
    }


class StderrHandler(logging.Handler):
    """Writes each record at once: after its priority if the journal reads the stream, else after the time."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = StandardError(STDERR_TIMEOUT)
        self._prefixed = stderr_is_journal(os.environ.get("JOURNAL_STREAM", ""))
        self.setFormatter(_Formatter("%(message)s"))

    def reset_losses(self) -> None:
        """Start the count of lost lines at 0: the parent process reports those before the fork."""
        self._stream = StandardError(STDERR_TIMEOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            message = self.format(record)
            if self._prefixed:
                text = _with_priority(record, message)
            else:
                level = "" if record.levelno == logging.INFO else record.levelname.lower() + ": "
                head = f"{timestamp(record.created)} preforkd[{os.getpid()}]: {level}"
                text = f"{head}{_indented(message)}\n"
            self._stream.write(text)
        except Exception:
            self.handleError(record)


def _with_priority(record: logging.LogRecord, message: str) -> str:
    # sd-daemon(3)
    prefix = f"<{priority(record.levelno)}>"
    return "".join(f"{prefix}{line}\n" for line in _indented(message).split("\n"))


def _indented(message: str) -> str:
    # A line of an application's text must not look like a record of its own.
    return message.replace("\n", "\n\t")


def timestamp(seconds: float) -> str:
    """Return a time in seconds since the epoch as RFC 3339 has it, local: 2026-11-27T14:03:21.250+01:00."""
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(seconds % 1 * 1000):03d}{zone[:3]}:{zone[3:]}"
