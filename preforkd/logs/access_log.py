"""The access log: one line for each request, written by the worker that has answered it.

Off by default. What is answered in one turn of the worker's loop is written together, before the loop waits
again: by one write(2) to a file that is opened for appending, or as datagrams to a journal that has to be
woken once. A journal that is behind is waited for as `preforkd.logs.journal` says; what it misses is counted.
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
from preforkd.logs import logs
from preforkd.logs.journal import ADDRESS, encoded

logger = logging.getLogger("preforkd.worker")

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_TOGETHER = 32
"""Requests whose lines are written together, at the most: those that a worker which is killed takes with it."""
_KNOWN, _KNOWN_SIZE = 256, 2048
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')


GONE = 499
"""The status of a request whose client left before any of its answer, as web servers have it."""


class Answered(msgspec.Struct, frozen=True, gc=False):
    """A request that has ended: who asked, with what, how it ended; bytes of the body, and seconds.

    One that was refused may have a line that is none: the target without method and version.
    """

    remote: str
    request: RequestHead
    status: int
    length: int
    seconds: float


class AccessLog:
    """Gathers what ``line`` makes of a request, until `flush` has ``write`` write it.

    Both may be called by several threads.
    """

    def __init__(
        self, line: Callable[[Answered], bytes], write: Callable[[Sequence[bytes]], None]
    ) -> None:
        self._line = line
        self._write = write
        self.gathered: deque[bytes] = deque()
        """What is to be written: `flush` is needed."""

    def log(self, answered: Answered) -> None:
        """Take a request that was answered."""
        gathered = self.gathered
        gathered.append(self._line(answered))
        if len(gathered) >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self.gathered.popleft())
        if lines:
            self._write(lines)


def open_access_log(settings: Settings) -> AccessLog | None:
    """Return what logs requests; None when nothing is to be logged. Raises SystemFailure."""
    line = json_line if settings.format == "json" else combined_line
    if settings.target == "off":
        return None
    if settings.target == "journal":
        entries = _Entries()
        return AccessLog(entries.entry, entries.write)
    if settings.target == "stderr":
        # Where standard error is the journal, the line goes there without a detour.
        return AccessLog(line, (_JournalLines() if logs.to_journal() else _StandardError()).write)
    try:
        descriptor = os.open(settings.target, _FLAGS | os.O_CREAT, 0o640)
    except OSError as error:
        raise _not_opened(settings.target, error) from error
    return AccessLog(line, _File(descriptor).write)


def demand(settings: Settings) -> None:
    """Try whether the access log can be opened, without creating it.

    Raises SystemFailure. A journal that is not there only is told: it may come.
    """
    target = settings.target
    if target == "journal" and not os.path.exists(ADDRESS):
        logger.warning(
            "access_log.target: %s does not exist: until it does, lines are lost", ADDRESS
        )
    if target in {"off", "journal", "stderr"}:
        return
    try:
        # A FIFO that nobody reads would let each worker wait for ever.
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
    """A file, or a pipe, in which the lines of several workers must stay whole."""

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
        except OSError as error:  # a full disk must not cost an answer
            if not self._lost:
                logger.warning("the access log cannot be written: %s", error.strerror)
            self._lost += piece.count(b"\n")
        else:
            if self._lost:
                logger.warning("%d lines of the access log were lost", self._lost)
            self._lost = 0


class _StandardError(_File):
    """Standard error: a pipe, maybe, that nobody reads."""

    def __init__(self) -> None:
        super().__init__(2)
        self._stream = logs.StandardError(logs.PATIENCE)

    def _write(self, piece: bytes) -> None:
        self._stream.write(piece.decode())


class _JournalLines:
    """Lines as they would be in a file."""

    def __init__(self) -> None:
        self._lines = logs.Lines(logging.INFO, logs.who, logs.sender().submit)

    def write(self, lines: Sequence[bytes]) -> None:
        self._lines.write(b"".join(lines).decode())


class _Entries:
    """Native entries with fields."""

    def __init__(self) -> None:
        self._sender = logs.sender()
        self._worker = encoded({"PRIORITY": 6, "SYSLOG_IDENTIFIER": "preforkd", **logs.who()})
        self._requests: BoundedCache[tuple[str, str, bytes, str], bytes] = BoundedCache(_KNOWN)
        """What entries say of requests that came before, up to the status at the message's end."""

    def entry(self, answered: Answered) -> bytes:
        request, status = answered.request, answered.status
        key = answered.remote, request.method, request.target, request.version
        known = self._requests.get(key)
        if known is None:
            known = self._about(answered.remote, request)
            if len(known) <= _KNOWN_SIZE:
                self._requests.keep(key, known)
        return b"%b%d\nPREFORKD_STATUS=%d\nPREFORKD_BYTES=%d\nPREFORKD_DURATION_USEC=%d\n%b" % (
            known,
            status,
            status,
            answered.length,
            answered.seconds * 1e6,
            self._worker,
        )

    def write(self, entries: Sequence[bytes]) -> None:
        for entry in entries:
            self._sender.submit(entry)

    def _about(self, remote: str, request: RequestHead) -> bytes:
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
    # Made once a second by whoever needs it.
    global _clock  # noqa: PLW0603
    now = int(time.time())
    if now != _clock[0]:
        _clock = (now, time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(now)))
    return _clock[1]


def combined_line(answered: Answered) -> bytes:
    """Return the line in the combined format that web servers share, with the seconds behind it."""
    request = answered.request
    text = (
        f'{answered.remote or "-"} - - [{_now()}] "{_request_line(request)}" {answered.status} '
        f'{answered.length} "{_header(request, b"referer")}" "{_header(request, b"user-agent")}" '
        f"{answered.seconds:.6f}\n"
    )
    return text.encode()


def json_line(answered: Answered) -> bytes:
    """Return the line as a JSON object."""
    request = answered.request
    entry = {
        "time": time.time(),
        "remote": answered.remote,
        "method": request.method,
        "target": printable(request.target.decode("latin-1")),
        "status": answered.status,
        "bytes": answered.length,
        "seconds": round(answered.seconds, 6),
        "host": _header(request, b"host"),
        "user_agent": _header(request, b"user-agent"),
        "worker": os.environ.get("PREFORKD_WORKER", ""),
    }
    return msgspec.json.encode(entry) + b"\n"


def _request_line(request: RequestHead) -> str:
    if not request.version:
        return f"{request.method} {_safe(request.target)}".lstrip()
    return f"{request.method} {_safe(request.target)} HTTP/{request.version}"


def _header(request: RequestHead, wanted: bytes) -> str:
    return next((_safe(value) for name, value in request.headers if name == wanted), "-")


def _safe(data: bytes) -> str:
    # What a client sends must not become another line, or another field of this one.
    text = data.decode("latin-1")
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
