"""Where log records go: the journal with its fields, or lines on standard error.

The three processes configure it alike; `set_context` adds who is speaking. An application finds logging as
the interpreter leaves it: records of preforkd go past what it configures, and what its own loggers let
through and no handler of its own takes goes the way of preforkd's records.
"""

import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from preforkd.core.text import printable_lines
from preforkd.logs import catalog
from preforkd.logs.journal import ADDRESS, Journal, encoded, stderr_is_journal
from preforkd.logs.streams import write_patiently

IDENTIFIER = "preforkd"

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.DEBUG, 7),
)
PATIENCE = 1.0
"""Seconds that whoever reads standard error may keep a process waiting."""
_RETRY = 1.0
"""Seconds between attempts to say that lines were lost."""
_context: dict[str, Any] = {}


def set_context(**fields: Any) -> None:
    """Add to what each record of this process carries: ``worker``, ``generation``."""
    _context.update(fields)


def forget_context(*names: str) -> None:
    """Add this no more: the process has become another."""
    for name in names:
        _context.pop(name, None)


def who() -> dict[str, object]:
    """Return the journal fields of this process."""
    return {f"PREFORKD_{name.upper()}": value for name, value in _context.items()}


def configure(level: str, target: str) -> None:
    """Send records of this level and above to ``journal``, ``stderr``, or where it fits (``auto``).

    A journal that does not read is given a second, once, and what it does not take goes to standard
    error, as what a journal that has gone would have got. Nor does a standard error that nobody reads
    stop anybody: lines are lost then, and counted.

    May be called again, and is to be after an application has been loaded, so that loggers which came
    since then are preforkd's as well.
    """
    global _sender, _handler, _level  # noqa: PLW0603 - logging itself is global
    before = _handler
    if _sender is not None:
        _sender.close()
    native = _is_native(target)
    _sender = Sender(who, Journal()) if native else None
    _handler = _JournalHandler() if native else _StderrHandler()
    _level = logging.getLevelNamesMapping()[level.upper()]
    if logging.lastResort in (_INTERPRETERS, before):
        logging.lastResort = _handler
    own = logging.getLogger("preforkd")
    own.setLevel(_level)
    own.propagate = False
    own.handlers[:] = [_handler]
    for name, each in own.manager.loggerDict.items():
        if isinstance(each, logging.Logger) and f"{name}.".startswith("preforkd."):
            each.__class__ = _Own


def close() -> None:
    """Close the socket to the journal; a record that comes after all goes to standard error."""
    if _sender is not None:
        _sender.close()


def renew() -> None:
    """Give this process, which a zygote has forked, its own socket to the journal.

    What others send does not fill it then. To configure logging anew would write to a hundred pages that
    workers share.
    """
    global _sender  # noqa: PLW0603
    if _sender is not None:
        _sender.close()
        _sender = Sender(who, Journal())
        _sender.on_loss = _tell_losses_later
    if isinstance(_handler, _StderrHandler):
        _handler.forget_losses()


def sender() -> "Sender":
    """Return what sends this process's entries, also where its records go to standard error."""
    global _sender  # noqa: PLW0603
    if _sender is None:
        _sender = Sender(who, Journal())
        _sender.on_loss = _tell_losses_later
    return _sender


def to_journal() -> bool:
    """Tell whether this process's records go to the journal."""
    return isinstance(_handler, _JournalHandler)


def tell_losses() -> None:
    """Say how many lines of this process were lost, if any were: it is about to end."""
    if _sender is not None:
        with contextlib.suppress(OSError):
            _sender.tell_losses()


def keep_enabled(name: str) -> None:
    """Have an application's configuration of logging not switch this logger off, which is not preforkd's.

    logging.config.dictConfig() does that, by default, to all loggers that it does not name.
    """
    logging.getLogger(name).__class__ = _Enabled


class _Enabled(logging.Logger):
    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, _wanted: bool) -> None:
        pass


class _Own(_Enabled):
    """One of ours: levels, handlers and filters that an application sets are not asked."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return level >= _level

    def handle(self, record: logging.LogRecord) -> None:
        if _handler is not None:
            _handler.handle(record)


class Sender:
    """Sends entries to a journal. What was lost is counted, and told before the next entry.

    ``who`` returns the journal fields of whose lines they are.
    """

    def __init__(self, who: Callable[[], Mapping[str, object]], journal: Journal) -> None:
        self._who = who
        self._journal = journal
        self._telling = threading.Lock()
        self.lost = 0
        """Lines that were lost and not told of yet."""
        self.on_loss: Callable[[], None] = lambda: None
        """Called when the first line is lost of those that are told of together."""

    def send(self, entry: bytes) -> None:
        """Send an entry as `preforkd.logs.journal.encoded` returns it. Raises OSError."""
        if self.lost:
            self.tell_losses()
        self._journal.send_encoded(entry)

    def submit(self, entry: bytes) -> None:
        """Send an entry; one that the journal does not take is lost."""
        try:
            self.send(entry)
        except OSError:
            self.lose(1)

    def lose(self, lines: int) -> None:
        """Count lines as lost."""
        first = not self.lost
        self.lost += lines
        if first:
            self.on_loss()

    def tell_losses(self) -> None:
        """Say how many lines were lost, if any were. Raises OSError."""
        # Not twice: another thread, or the one that this signal handler interrupts, says it.
        if not self._telling.acquire(blocking=False):
            return
        try:
            if lost := self.lost:
                self._journal.send(_loss(lost, self._who()))
                self.lost -= lost
        finally:
            self._telling.release()

    def close(self) -> None:
        """Close the socket."""
        self._journal.close()


def _loss(lines: int, fields: Mapping[str, object]) -> dict[str, object]:
    if "PREFORKD_WORKER" in fields:
        speaker = f"worker {fields['PREFORKD_WORKER']}"
    elif "PREFORKD_GENERATION" in fields:
        speaker = f"the zygote of generation {fields['PREFORKD_GENERATION']}"
    else:
        speaker = "the master"
    return {
        "MESSAGE": f"{lines} lines of {speaker} were lost: the journal did not take them",
        "PRIORITY": priority(logging.WARNING),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "MESSAGE_ID": catalog.LINES_LOST.id,
        "PREFORKD_MISSED": lines,
        **fields,
    }


def _tell_losses_later() -> None:
    # By a thread, which lives until it is said: a process that lost lines may have nothing more to say.
    with contextlib.suppress(RuntimeError):  # then the next line says it
        threading.Thread(target=_tell_until_taken, name="preforkd-losses", daemon=True).start()


def _tell_until_taken() -> None:
    while _sender is not None and _sender.lost:
        time.sleep(_RETRY)
        tell_losses()


class Lines:
    """Text that somebody prints, piece by piece: each line becomes an entry of its own.

    ``fields`` returns who speaks, ``take`` gets each entry, encoded. A line's priority is ``level``, or
    what it begins with: ``<3>``, as sd-daemon(3) has it.
    """

    LIMIT = 48 * 1024
    """Characters after which a line is cut, as LineMax= of journald.conf(5) does."""

    def __init__(
        self,
        level: int,
        fields: Callable[[], Mapping[str, object]],
        take: Callable[[bytes], object],
    ) -> None:
        self._take = take
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
            "MESSAGE": printable_lines(line),
            "PRIORITY": number,
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            **self._fields(),
        }
        self._take(encoded(fields))


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
        self._lines = Lines(level, who, lambda entry: sender().submit(entry))
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
    a program that is started) is not caught here: see `preforkd.supervisor.child_output`.
    """
    if to_journal():
        sys.stdout = _Output(logging.INFO, 1)
        sys.stderr = _Output(logging.WARNING, 2)


def _is_native(target: str) -> bool:
    if target != "auto":
        return target == "journal"
    return stderr_is_journal(os.environ.get("JOURNAL_STREAM", "")) and os.path.exists(ADDRESS)


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
        return printable_lines(_speaker() + super().format(record))


class _JournalHandler(logging.Handler):
    """Writes native entries; see `configure` for what the journal does not take."""

    def __init__(self) -> None:
        super().__init__()
        self._instead = StandardError(0.0)
        self.setFormatter(_Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            sending = sender()
            try:
                sending.send(encoded(_fields(record, message)))
            except OSError as error:
                # A worker's standard error is read by the master, which has no other journal.
                elsewhere = "worker" not in _context or not isinstance(error, BlockingIOError)
                if not (elsewhere and self._instead.write(_marked(record, message))):
                    sending.lose(1)
        except Exception:  # logging must not fail what it reports about
            self.handleError(record)


def _fields(record: logging.LogRecord, message: str) -> dict[str, object]:
    return {
        "MESSAGE": message,
        "PRIORITY": priority(record.levelno),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
        **who(),
        **getattr(record, "journal", {}),
    }


class StandardError:
    """Standard error, for what must not stop us; whoever reads it is given ``patience`` seconds once."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._missed = 0

    def write(self, text: str) -> bool:
        """Write lines; tell whether they were taken. What is not is lost, and counted."""
        patience = 0.0 if self._missed else self._patience
        if self._missed:
            text = f"({self._missed} lines were lost here: they could not be written)\n{text}"
        taken = False
        with contextlib.suppress(OSError):
            taken = write_patiently(2, text.encode("utf-8", "backslashreplace"), patience)
        self._missed = 0 if taken else self._missed + 1
        return taken


class _StderrHandler(logging.Handler):
    """Writes a record in one piece: with its priority if the journal reads it, else with the time."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = StandardError(PATIENCE)
        self._prefixed = stderr_is_journal(os.environ.get("JOURNAL_STREAM", ""))
        self.setFormatter(_Formatter("%(message)s"))

    def forget_losses(self) -> None:
        """Begin to count anew: those that were lost are another process's to tell."""
        self._stream = StandardError(PATIENCE)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            if self._prefixed:
                text = _marked(record, message)
            else:
                level = "" if record.levelno == logging.INFO else record.levelname.lower() + ": "
                head = f"{time_of(record.created)} preforkd[{os.getpid()}]: {level}"
                text = f"{head}{_indented(message)}\n"
            self._stream.write(text)
        except Exception:
            self.handleError(record)


def _marked(record: logging.LogRecord, message: str) -> str:
    mark = f"<{priority(record.levelno)}>"
    return "".join(f"{mark}{line}\n" for line in _indented(message).split("\n"))


def _indented(message: str) -> str:
    # So that no line of an application's text passes for a record.
    return message.replace("\n", "\n\t")


def time_of(seconds: float) -> str:
    """Return a time of day, in seconds since the epoch, as lines begin: 2026-11-27T14:03:21.250+01:00."""
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(seconds % 1 * 1000):03d}{zone[:3]}:{zone[3:]}"


_INTERPRETERS = logging.lastResort
_sender: Sender | None = None
_handler: _JournalHandler | _StderrHandler | None = None
_level = logging.INFO
