"""Where log records go: the journal with its fields, or lines on standard error.

The three processes configure it alike; `set_context` adds who is speaking.
"""

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from preforkd.linux.journal import ADDRESS, Journal, stderr_is_journal
from preforkd.linux.streams import write_patiently

IDENTIFIER = "preforkd"

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.DEBUG, 7),
)
_PATIENCE = 1.0
"""Seconds that whoever reads standard error may keep the master waiting."""
_context: dict[str, Any] = {}


def set_context(**fields: Any) -> None:
    """Add to what each record of this process carries: ``worker``, ``generation``."""
    _context.update(fields)


def forget_context(*names: str) -> None:
    """Add this no more: the process has become another."""
    for name in names:
        _context.pop(name, None)


def configure(level: str, target: str) -> None:
    """Send records of this level and above to ``journal``, ``stderr``, or where it fits (``auto``).

    A journal that does not read is given a second, once, and what it does not take goes to standard
    error, as what a journal that has gone would have got. Nor does a standard error that nobody reads
    stop anybody: lines are lost then, and counted.

    May be called again, and is to be after an application has been loaded, which may have taken away
    what is not its own. Its records go the same way as long as it has not configured the root logger.
    """
    handler: _JournalHandler | _StderrHandler = _journal_handler(target) or _StderrHandler()
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
    for name, each in own.manager.loggerDict.items():
        if isinstance(each, logging.Logger) and f"{name}.".startswith("preforkd."):
            each.__class__ = _Own


class _Own(logging.Logger):
    """One of ours: no application switches it off.

    logging.config.dictConfig() does that, by default, to all loggers that it does not name.
    """

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, _wanted: bool) -> None:
        pass


def hurry() -> None:
    """Wait for nobody from now on: in a worker, whose zygote has configured this.

    What a journal that does not read misses is counted, and told with the next record. To configure it
    anew would write to a hundred pages that workers share.
    """
    for handler in logging.getLogger("preforkd").handlers:
        if isinstance(handler, _Handlers):
            handler.hurry()


def to_journal() -> bool:
    """Tell whether this process's records go to the journal."""
    own = logging.getLogger("preforkd")
    return any(isinstance(handler, _JournalHandler) for handler in own.handlers)


class Lines:
    """Text that somebody prints, piece by piece: each line becomes an entry of its own.

    ``fields`` returns who speaks. A line's priority is ``level``, or what it begins with: ``<3>``, as
    sd-daemon(3) has it. ``journal`` is one that is not waited for: what it misses is lost.
    """

    LIMIT = 48 * 1024
    """Characters after which a line is cut, as LineMax= of journald.conf(5) does."""

    def __init__(
        self, level: int, fields: Callable[[], Mapping[str, object]], journal: Journal
    ) -> None:
        self._journal = journal
        self._priority = priority(level)
        self._fields = fields
        self._rest = ""

    def write(self, text: str) -> None:
        """Take a piece of text."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._send(line)
        while len(self._rest) > self.LIMIT:
            self._send(self._rest[: self.LIMIT])
            self._rest = self._rest[self.LIMIT :]

    def flush(self) -> None:
        """Take what there is for a line."""
        rest, self._rest = self._rest, ""
        self._send(rest)

    def _send(self, line: str) -> None:
        number, line = self._priority, line.rstrip()
        if line[:1] == "<" and line[1:2] in tuple("01234567") and line[2:3] == ">":
            number, line = int(line[1]), line[3:]
        if not line:
            return
        fields = {
            "MESSAGE": line,
            "PRIORITY": number,
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            **self._fields(),
        }
        with contextlib.suppress(OSError):
            self._journal.send(fields)


def who() -> dict[str, object]:
    """Return the journal fields of this process."""
    return {f"PREFORKD_{name.upper()}": value for name, value in _context.items()}


class _Bytes(io.RawIOBase):
    """What is written as bytes to a stream of `_Output`."""

    def __init__(self, output: "_Output") -> None:
        super().__init__()
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._output.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)


class _Output(io.TextIOBase):
    """Standard output or error: each line an entry of its own, with who speaks at that moment.

    Made in the zygote, so that a handler of logging that the application made while it was loaded, and
    that keeps the stream, speaks for the worker later.
    """

    def __init__(self, level: int, descriptor: int) -> None:
        self._lines = Lines(level, who, Journal(wait=False))
        self._descriptor = descriptor
        # Threads may print at once; a signal handler may print while its own thread does.
        self._lock = threading.RLock()
        self.buffer = _Bytes(self)
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
        """Nothing to be had: for applications that ask sys.stdout for another encoding."""

    def write(self, text: str) -> int:
        with self._lock:
            self._lines.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._lines.flush()


def capture_output() -> None:
    """Have what this process and its forks print in Python arrive in the journal with who prints it.

    Only where log records go there, too. What others write to the descriptors 1 and 2 (a library in C,
    a program that is started) is not caught here: see `preforkd.supervisor.output`.
    """
    if to_journal():
        sys.stdout = _Output(logging.INFO, 1)
        sys.stderr = _Output(logging.WARNING, 2)


def _journal_handler(target: str) -> "_JournalHandler | None":
    if target == "stderr":
        return None
    if target == "auto":
        ours = stderr_is_journal(os.environ.get("JOURNAL_STREAM", ""))
        if not ours or not os.path.exists(ADDRESS):
            return None
    return _JournalHandler()


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

    def __init__(self) -> None:
        super().__init__()
        self._journal = Journal()
        self._patient = True
        self._missed = 0
        self._instead = _StandardError(0.0)
        self.setFormatter(_Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            fields = _fields(record, message)
            if self._missed:
                fields["PREFORKD_MISSED"] = self._missed
            if self._journal.closed:
                # By logging.shutdown(), which logging.config.dictConfig() calls.
                self._journal = Journal(wait=self._patient and not self._missed)
            try:
                self._journal.send(fields)
            except OSError as error:
                self._miss()
                if self._patient or not isinstance(error, BlockingIOError):
                    self._instead.write(f"<{priority(record.levelno)}>{message}\n")
            else:
                self._reached()
        except Exception:  # logging must not fail what it reports about
            self.handleError(record)

    def _miss(self) -> None:
        # One wait is enough: a master that waits for each of a hundred lines feeds no watchdog.
        self._missed += 1
        if self._missed == 1:
            self._journal.set_waiting(False)

    def _reached(self) -> None:
        if self._missed:
            self._missed = 0
            self._journal.set_waiting(self._patient)

    def hurry(self) -> None:
        self._patient = False
        self._missed = 0
        # A socket of its own: what others send does not fill it.
        self._journal.close()
        self._journal = Journal(wait=False)

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


class _StandardError:
    """Standard error, for what must not stop us; whoever reads it is given ``patience`` seconds once."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._missed = 0

    def write(self, text: str) -> None:
        patience = 0.0 if self._missed else self._patience
        if self._missed:
            text = f"({self._missed} lines were lost here: nobody read them)\n{text}"
        with contextlib.suppress(OSError):
            if write_patiently(2, text.encode("utf-8", "backslashreplace"), patience):
                self._missed = 0
            else:
                self._missed += 1


class _StderrHandler(logging.Handler):
    """Writes lines to standard error in one piece, with the priority if the journal reads them."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = _StandardError(_PATIENCE)
        self._prefixed = stderr_is_journal(os.environ.get("JOURNAL_STREAM", ""))
        self.setFormatter(_Formatter("%(message)s"))

    def hurry(self) -> None:
        self._stream = _StandardError(0.0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            if self._prefixed:
                mark = f"<{priority(record.levelno)}>"
                text = "".join(f"{mark}{line}\n" for line in message.split("\n"))
            else:
                level = "" if record.levelno == logging.INFO else record.levelname.lower() + ": "
                text = f"preforkd[{os.getpid()}]: {level}{message}\n"
            self._stream.write(text)
        except Exception:
            self.handleError(record)


_Handlers = (_JournalHandler, _StderrHandler)
