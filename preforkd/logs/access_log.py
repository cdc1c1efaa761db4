"""The access log: one line for each request, written by the worker that answered it.

Off by default.  The lines of one turn of the worker's loop are written together, before the loop waits again:
with one write(2) to a file opened with O_APPEND, or as datagrams to the journal, which then wakes up once.  A
journal that is behind may block the worker as `preforkd.logs.journal` describes; lines that it does not take
are counted.
"""

import contextlib
import errno
import logging
import os
import re
import select
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from preforkd.config.settings import AccessLogSettings as Settings
from preforkd.core.text import printable
from preforkd.errors import SystemFailure
from preforkd.http.caches import BoundedCache
from preforkd.http.head import RequestHead
from preforkd.logs import journal, logs, sender
from preforkd.logs.captured import EntryLines
from preforkd.logs.context import IDENTIFIER, journal_fields
from preforkd.logs.handlers import STDERR_TIMEOUT, StandardError
from preforkd.logs.journal import encoded

logger = logging.getLogger("preforkd.worker")

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_BUFFERED_LINES = 32
"""Lines that are written together, at most: a worker that is killed loses them."""
_CACHED_REQUESTS, _CACHED_REQUEST_SIZE = 256, 2048
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')

CLIENT_CLOSED_REQUEST = 499
"""The status logged when the client closed the connection before the response began, as nginx logs it."""


class CompletedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that has ended: the client, the request, the status, bytes of the response's body, seconds.

    If the request line was invalid, ``request`` holds all of it as the target, without method and version.
    """

    remote: str
    request: RequestHead
    status: int
    length: int
    seconds: float


class AccessLog:
    """Collects the lines that ``line`` makes of requests until `flush` passes them to ``write``.

    `log` and `flush` may be called by several threads.
    """

    def __init__(
        self, line: Callable[[CompletedRequest], bytes], write: Callable[[Sequence[bytes]], None]
    ) -> None:
        self._line = line
        self._write = write
        self.pending: deque[bytes] = deque()
        """Lines that `flush` will write."""

    def log(self, completed: CompletedRequest) -> None:
        """Add the line of a request."""
        pending = self.pending
        pending.append(self._line(completed))
        if len(pending) >= _BUFFERED_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the pending lines."""
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self.pending.popleft())
        if lines:
            self._write(lines)


def open_access_log(settings: Settings) -> AccessLog | None:
    """Return the access log that the settings describe; None if it is off. Raises SystemFailure."""
    line = json_line if settings.format == "json" else combined_line
    if settings.target == "off":
        return None
    if settings.target == "journal":
        entries = _JournalEntries()
        return AccessLog(entries.entry, entries.write)
    if settings.target == "stderr":
        # Not through the stream if that is the journal: the entry has the fields of the worker then.
        return AccessLog(line, (_JournalLines() if logs.uses_journal() else _StandardError()).write)
    try:
        descriptor = os.open(settings.target, _FLAGS | os.O_CREAT, 0o640)
    except OSError as error:
        raise _not_opened(settings.target, error) from error
    return AccessLog(line, _File(descriptor).write)


def check_writable(settings: Settings) -> None:
    """Check that the access log can be opened, without creating it.

    Raises SystemFailure. A missing journal is logged only: it may start later.
    """
    target = settings.target
    if target == "journal" and not os.path.exists(journal.ADDRESS):
        logger.warning(
            "access_log.target: %s does not exist: lines are lost until it does", journal.ADDRESS
        )
    if target in {"off", "journal", "stderr"}:
        return
    try:
        # O_NONBLOCK: opening a FIFO without a reader would block each worker.
        os.close(os.open(target, _FLAGS | os.O_NONBLOCK))
    except FileNotFoundError as error:
        folder = os.path.dirname(target) or "."
        if not os.path.isdir(folder):
            raise _not_opened(target, error) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            number = errno.EROFS if read_only else errno.EACCES
            raise _not_opened(target, OSError(number, os.strerror(number))) from error
    except OSError as error:
        raise _not_opened(target, error) from error


def _not_opened(target: str, error: OSError) -> SystemFailure:
    failure = SystemFailure(
        f"access_log.target: {target}: {error.strerror}",
        hint="name a file in a directory that preforkd may write to, for example by LogsDirectory=",
    )
    failure.setting = "access_log.target"
    return failure


class _File:
    """A file or a pipe; writes of up to PIPE_BUF bytes do not mix with those of other workers."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lost = 0

    def write(self, lines: Sequence[bytes]) -> None:
        piece = b""
        for line in lines:
            if piece and len(piece) + len(line) > select.PIPE_BUF:
                self._write(piece)
                piece = b""
            piece += line
        self._write(piece)

    def _write(self, piece: bytes) -> None:
        try:
            os.write(self._descriptor, piece)
        except OSError as error:  # a full disk must not fail a request
            if not self._lost:
                logger.warning("access log: write failed: %s; lines are lost", error.strerror)
            self._lost += piece.count(b"\n")
        else:
            if self._lost:
                logger.warning("access log: %d lines were lost", self._lost)
            self._lost = 0


class _StandardError(_File):
    """Standard error, which may be a pipe that is not read."""

    def __init__(self) -> None:
        super().__init__(2)
        self._stream = StandardError(STDERR_TIMEOUT)

    def _write(self, piece: bytes) -> None:
        self._stream.write(piece.decode())


class _JournalLines:
    """Entries whose message is the line that a file would contain."""

    def __init__(self) -> None:
        self._lines = EntryLines(logging.INFO, journal_fields, sender.own().submit)

    def write(self, lines: Sequence[bytes]) -> None:
        self._lines.write(b"".join(lines).decode())


class _JournalEntries:
    """Entries with a field for each part of the line."""

    def __init__(self) -> None:
        self._sender = sender.own()
        self._worker_fields = encoded(
            {"PRIORITY": 6, "SYSLOG_IDENTIFIER": IDENTIFIER, **journal_fields()}
        )
        self._requests: BoundedCache[tuple[str, str, bytes, str], bytes] = BoundedCache(
            _CACHED_REQUESTS
        )
        """The beginning of the entry, up to the status at the end of MESSAGE, by request."""

    def entry(self, completed: CompletedRequest) -> bytes:
        request, status = completed.request, completed.status
        key = completed.remote, request.method, request.target, request.version
        beginning = self._requests.get(key)
        if beginning is None:
            beginning = self._beginning(completed.remote, request)
            if len(beginning) <= _CACHED_REQUEST_SIZE:
                self._requests.keep(key, beginning)
        return b"%b%d\nPREFORKD_STATUS=%d\nPREFORKD_BYTES=%d\nPREFORKD_DURATION_USEC=%d\n%b" % (
            beginning,
            status,
            status,
            completed.length,
            completed.seconds * 1e6,
            self._worker_fields,
        )

    def write(self, entries: Sequence[bytes]) -> None:
        for entry in entries:
            self._sender.submit(entry)

    def _beginning(self, remote: str, request: RequestHead) -> bytes:
        fields = encoded(
            {
                "PREFORKD_REMOTE": remote,
                "PREFORKD_METHOD": request.method,
                "PREFORKD_TARGET": _safe(request.target),
            }
        )
        message = f"MESSAGE={_safe(remote.encode())} {_request_line(request)} "
        return fields + message.encode()


_clock = (0, "")


def _now() -> str:
    # Formatted once a second.
    global _clock  # noqa: PLW0603
    now = int(time.time())
    if now != _clock[0]:
        _clock = (now, time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(now)))
    return _clock[1]


def combined_line(completed: CompletedRequest) -> bytes:
    """Return the line in the combined format of Apache and nginx, followed by the seconds."""
    request = completed.request
    text = (
        f'{completed.remote or "-"} - - [{_now()}] "{_request_line(request)}" {completed.status} '
        f'{completed.length} "{_header(request, b"referer")}" "{_header(request, b"user-agent")}" '
        f"{completed.seconds:.6f}\n"
    )
    return text.encode()


def json_line(completed: CompletedRequest) -> bytes:
    """Return the line as a JSON object."""
    request = completed.request
    entry: dict[str, str | float] = {
        "time": time.time(),
        "remote": completed.remote,
        "method": request.method,
        "target": printable(request.target.decode("latin-1")),
        "status": completed.status,
        "bytes": completed.length,
        "seconds": round(completed.seconds, 6),
        "host": _header(request, b"host"),
        "user_agent": _header(request, b"user-agent"),
        "worker": os.environ.get("PREFORKD_WORKER", ""),
    }
    if request.dropped:
        entry["dropped_headers"] = request.dropped
    return msgspec.json.encode(entry) + b"\n"


def _request_line(request: RequestHead) -> str:
    if not request.version:
        return f"{request.method} {_safe(request.target)}".lstrip()
    return f"{request.method} {_safe(request.target)} HTTP/{request.version}"


def _header(request: RequestHead, wanted: bytes) -> str:
    return next((_safe(value) for name, value in request.headers if name == wanted), "-")


def _safe(data: bytes) -> str:
    # A client must not be able to add a line, or a field.
    text = data.decode("latin-1")
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
