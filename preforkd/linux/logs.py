"""Where log records go: the journal with its fields, or lines on standard error.

The three processes configure it alike; `set_context` adds who is speaking.
"""

import contextlib
import io
import logging
import os
import sys
from typing import Any

from preforkd.linux.journal import ADDRESS, Journal, stderr_is_journal

IDENTIFIER = "preforkd"

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.DEBUG, 7),
)
_context: dict[str, Any] = {}


def set_context(**fields: Any) -> None:
    """Add to what each record of this process carries: ``worker``, ``generation``."""
    _context.update(fields)


def configure(level: str, target: str, *, patient: bool = True) -> None:
    """Send records of this level and above to ``journal``, ``stderr``, or where it fits (``auto``).

    ``patient``: a journal that does not read is given a second, and what it does not take goes to
    standard error. A worker is not: what the journal misses is counted, and told with the next record.

    May be called again. The application's own records go the same way as long as it has not
    configured the root logger.
    """
    handler: logging.Handler = _journal_handler(target, patient) or _StderrHandler()
    root = logging.getLogger()
    ours = [known for known in root.handlers if isinstance(known, _Handlers)]
    if ours or not root.handlers:
        for known in ours:
            root.removeHandler(known)
            known.close()
        root.addHandler(handler)
    own = logging.getLogger("preforkd")
    own.setLevel(level.upper())
    # An application that sends the root elsewhere does not get preforkd's records.
    own.propagate = False
    for old in list(own.handlers):
        own.removeHandler(old)
        old.close()
    own.addHandler(handler)


class _LineWriter(io.TextIOBase):
    """Standard output or error of a worker: each line an entry of its own, with who speaks."""

    def __init__(self, journal: Journal, level: int, descriptor: int) -> None:
        self._journal = journal
        self._level = level
        self._descriptor = descriptor
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._send(line)
        return len(text)

    def flush(self) -> None:
        if self._rest:
            rest, self._rest = self._rest, ""
            self._send(rest)

    def _send(self, line: str) -> None:
        fields = {
            "MESSAGE": line,
            "PRIORITY": priority(self._level),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            **{f"PREFORKD_{name.upper()}": value for name, value in _context.items()},
        }
        # A journal that does not read must not stop a worker that prints.
        with contextlib.suppress(OSError):
            self._journal.send(fields)


def capture_output() -> None:
    """Have what the application prints arrive in the journal with the fields of who prints it.

    Only where log records go there, too. What is not Python's (a library in C) still writes to the
    descriptors, and is known by its pid.
    """
    own = logging.getLogger("preforkd")
    if any(isinstance(handler, _JournalHandler) for handler in own.handlers):
        sys.stdout = _LineWriter(Journal(wait=False), logging.INFO, 1)
        sys.stderr = _LineWriter(Journal(wait=False), logging.WARNING, 2)


def _journal_handler(target: str, patient: bool) -> logging.Handler | None:
    if target == "stderr":
        return None
    wanted = target == "journal" or stderr_is_journal(os.environ.get("JOURNAL_STREAM", ""))
    if not wanted or not os.path.exists(ADDRESS):
        return None
    return _JournalHandler(Journal(wait=patient), patient)


def priority(level: int) -> int:
    """Return syslog's priority for a level of logging."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)


def _speaker() -> str:
    worker, generation = _context.get("worker"), _context.get("generation")
    if worker is not None:
        return f"worker {worker} (generation {generation}): "
    return f"zygote (generation {generation}): " if generation is not None else ""


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _speaker() + super().format(record)


class _JournalHandler(logging.Handler):
    """Writes native entries; see `configure` for what the journal does not take."""

    def __init__(self, journal: Journal, patient: bool) -> None:
        super().__init__()
        self._journal = journal
        self._patient = patient
        self._missed = 0
        self.setFormatter(_Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            try:
                fields = _fields(record, message)
                if self._missed:
                    fields["PREFORKD_MISSED"] = self._missed
                self._journal.send(fields)
                self._missed = 0
            except OSError:
                self._missed += 1
                if self._patient:
                    sys.stderr.write(f"<{priority(record.levelno)}>{message}\n")
        except Exception:  # logging must not fail what it reports about
            self.handleError(record)

    def close(self) -> None:
        self._journal.close()
        super().close()


def _fields(record: logging.LogRecord, message: str) -> dict[str, object]:
    fields: dict[str, object] = {
        "MESSAGE": message,
        "PRIORITY": priority(record.levelno),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
    }
    for name in ("worker", "generation"):
        if name in _context:
            fields[f"PREFORKD_{name.upper()}"] = _context[name]
    fields.update(getattr(record, "journal", {}))
    return fields


class _StderrHandler(logging.Handler):
    """Writes lines to standard error in one piece, with the priority if the journal reads them."""

    def __init__(self) -> None:
        super().__init__()
        self._prefixed = stderr_is_journal(os.environ.get("JOURNAL_STREAM", ""))
        self.setFormatter(_Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            if self._prefixed:
                mark = f"<{priority(record.levelno)}>"
                text = "".join(f"{mark}{line}\n" for line in message.split("\n"))
            else:
                level = "" if record.levelno == logging.INFO else record.levelname.lower() + ": "
                text = f"preforkd[{os.getpid()}]: {level}{message}\n"
            with contextlib.suppress(OSError):
                # One write(2), so that lines of several processes do not mix.
                os.write(2, text.encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)


_Handlers = (_JournalHandler, _StderrHandler)
