"""WSGI applications (PEP 3333): from a request to the environ, from the iterable to the response."""

import io
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import TracebackType
from typing import IO, Any, Protocol
from urllib.parse import unquote_to_bytes

from preforkd.config.prefix import below

logger = logging.getLogger("preforkd.app")

Environ = dict[str, Any]
Application = Callable[..., Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_BLOCK = 64 * 1024
_SHORT = 64
"""Longest header name, in bytes, that is cached."""
_SLASH = ord("/")
_WITHOUT_PREFIX = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
    b"transfer-encoding": "",  # the body is complete when the application is called
}


class RequestHeadProtocol(Protocol):
    """The attributes of a request's head that are used; see `preforkd.http.head.RequestHead`."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def target(self) -> bytes:
        """The target of the request line."""

    @property
    def version(self) -> str:
        """1.0 or 1.1."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Lower-case names and values."""


class ResponseProtocol(Protocol):
    """The methods of a response that are used; see `preforkd.worker.wsgi.response.Response`."""

    head_sent: bool
    flaw: str

    @property
    def started(self) -> bool:
        """Return whether the head is known."""

    @property
    def over(self) -> bool:
        """Return whether further parts would not be sent."""

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Take the head."""

    def send_whole(self, data: bytes, *, last: bool = False) -> None:
        """Send a complete body; ``last``: the application has nothing left to do."""

    def write(self, data: bytes) -> None:
        """Send a part of the body."""

    def write_file(self, file: IO[bytes], offset: int, count: int) -> None:
        """Send a part of a file as the whole body."""

    def finish(self) -> None:
        """End the body."""


class FileWrapper:
    """``wsgi.file_wrapper``: a file as an iterable of blocks; a real file goes by sendfile(2)."""

    def __init__(self, file: Any, block_size: int = _BLOCK) -> None:
        self.file = file
        self._block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> "FileWrapper":
        return self

    def __next__(self) -> bytes:
        data: bytes = self.file.read(self._block_size)
        if not data:
            raise StopIteration
        return data

    def region(self) -> tuple[int, int] | None:
        """Return offset and length of the part to be sent.

        None if this is not a regular file, or its ``read`` may return other data than the file.
        """
        file = _as_opened(self.file)
        if file is None:
            return None
        try:
            status = os.fstat(file.fileno())
            # A file with a size and no blocks may be one of sysfs, which is shorter than its size.
            if not (stat.S_ISREG(status.st_mode) and status.st_blocks and file.readable()):
                return None
            if isinstance(file, io.BufferedRandom):
                file.flush()
                status = os.fstat(file.fileno())
            offset = file.tell()
        except (OSError, ValueError):
            return None
        return offset, max(0, status.st_size - offset)


def server_name(host: str) -> str:
    """Return a local address in the form of a URL (RFC 3875, section 4.1.14)."""
    host = host.partition("%")[0]
    return f"[{host}]" if ":" in host else host


def _as_opened(file: Any) -> Any:
    """Return the object of ``open()`` that this is, or wraps without changing what is read; else None.

    Exactly those types: any other may have both a descriptor and a ``read`` of its own (gzip).
    """
    if type(file) is tempfile._TemporaryFileWrapper:
        file = file.file
    elif type(file) is tempfile.SpooledTemporaryFile:
        file = file._file
    raw = file.raw if type(file) in {io.BufferedReader, io.BufferedRandom} else file
    plain = type(raw) is io.FileIO and "read" not in getattr(file, "__dict__", ())
    return file if plain else None


def base_environ(server: str, port: str, *, secure: bool, threads: bool) -> Environ:
    """Return the keys that all requests of one listener share."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if secure else "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": threads,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
        "wsgi.input": None,
        "SERVER_SOFTWARE": "preforkd",
        "SCRIPT_NAME": "",
        "SERVER_NAME": server,
        "SERVER_PORT": port,
        "REMOTE_ADDR": "",
    }


class OriginProtocol(Protocol):
    """What a trusted proxy reported of the client; see `preforkd.http.forwarded.Origin`."""

    @property
    def address(self) -> str | None:
        """The client's address."""

    @property
    def scheme(self) -> str | None:
        """The scheme of the client's request: http or https."""

    @property
    def host(self) -> str | None:
        """The host that the client addressed, without port."""

    @property
    def port(self) -> str | None:
        """The port that the client addressed."""

    @property
    def prefix(self) -> str:
        """The mount prefix; empty: the application is mounted at the root."""


def environ_builder(
    server: str, port: str, *, secure: bool, threads: bool
) -> Callable[[RequestHeadProtocol, OriginProtocol], Environ]:
    """Return a function that makes the environ of a head, with what a proxy reported of the client."""
    base = base_environ(server, port, secure=secure, threads=threads)

    def build(head: RequestHeadProtocol, origin: OriginProtocol) -> Environ:
        environ = environ_for(head, base)
        if origin.scheme is not None:
            environ["wsgi.url_scheme"] = origin.scheme
        if origin.address is not None:
            environ["REMOTE_ADDR"] = origin.address
        if origin.host is not None:
            environ["SERVER_NAME"] = origin.host
        if origin.port is not None:
            environ["SERVER_PORT"] = origin.port
        if origin.prefix:
            mount(environ, origin.prefix)
        return environ

    return build


def mount(environ: Environ, prefix: str) -> None:
    """Move the mount prefix from the path to SCRIPT_NAME."""
    environ["SCRIPT_NAME"] = prefix
    environ["PATH_INFO"] = below(environ["PATH_INFO"], prefix)


def environ_for(head: RequestHeadProtocol, base: Environ) -> Environ:
    """Return the keys that all requests with this head share."""
    target = head.target
    path, _, query = (target if target[0] == _SLASH else _origin_form(target)).partition(b"?")
    uri = target.decode("latin-1")
    environ = {
        **base,
        "REQUEST_METHOD": head.method,
        "SERVER_PROTOCOL": f"HTTP/{head.version}",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "REQUEST_URI": uri,
        "RAW_URI": uri,
    }
    repeated: dict[str, list[str]] = {}
    for name, value in head.headers:
        key = (_cached_key if len(name) <= _SHORT else _key)(name)
        if key in environ:
            repeated.setdefault(key, [environ[key]]).append(value.decode("latin-1"))
        elif key:
            environ[key] = value.decode("latin-1")
    for key, values in repeated.items():  # joined once: linear time for many of the same name
        environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join(values)
    return environ


def _key(name: bytes) -> str:
    """Return the environ key of a header; empty: the application does not get it."""
    if name in _WITHOUT_PREFIX:
        return _WITHOUT_PREFIX[name]
    return "HTTP_" + name.decode("latin-1").upper().replace("-", "_")


_cached_key = lru_cache(512)(_key)


def _origin_form(target: bytes) -> bytes:
    if target == b"*":
        return b""
    rest = target.partition(b"://")[2]
    path = rest[len(rest.partition(b"/")[0].partition(b"?")[0]) :]
    return path if path.startswith(b"/") else b"/" + path


def set_body(environ: Environ, body: IO[bytes], length: int) -> None:
    """Add the body to the environ.

    CONTENT_LENGTH is set for a chunked body too, which is complete: most applications need it.
    """
    environ["wsgi.input"] = body
    if length and "CONTENT_LENGTH" not in environ:
        environ["CONTENT_LENGTH"] = str(length)


def call(
    application: Application, environ: Environ, response: ResponseProtocol
) -> Callable[[], None] | None:
    """Call the application for one request.

    Returns a function to be called when the response is sent, if sending needs an object of the application
    (a file); else None.

    An exception of the application is raised to the caller, which answers 500 if nothing was sent yet; a
    response that fails later is visibly cut off, and never looks complete.
    """
    iterable = application(environ, response.start_response)
    if iterable.__class__ is list and len(iterable) == 1:
        response.send_whole(iterable[0], last=True)
        if response.flaw:
            _complain(response)
        return None
    close = getattr(iterable, "close", None)
    try:
        if iterable.__class__ is FileWrapper and _send_file(iterable, response):
            later, close = close, None
            return later
        if isinstance(iterable, (list, tuple)) and len(iterable) == 1:
            response.send_whole(iterable[0])
        elif not response.over:
            for data in iterable:
                if data:
                    response.write(data)
                if response.over:
                    break  # it may be endless
        if not response.started:
            raise AssertionError("the application did not call start_response")
        response.finish()
        if response.flaw:
            _complain(response)
    finally:
        if close is not None:
            close()
    return None


def _complain(response: ResponseProtocol) -> None:
    logger.error(
        "the application sent %s than its Content-Length; closing the connection", response.flaw
    )


def _send_file(wrapper: FileWrapper, response: ResponseProtocol) -> bool:
    region = wrapper.region()
    if region is None or response.head_sent or not region[1]:
        return False
    response.write_file(wrapper.file, *region)
    return True
