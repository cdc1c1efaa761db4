"""WSGI applications (PEP 3333): from a request to the environ, from the iterable to the response."""

import logging
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import IO, Any, Protocol
from urllib.parse import unquote_to_bytes

logger = logging.getLogger("preforkd.app")

Environ = dict[str, Any]
Application = Callable[..., Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_BLOCK = 64 * 1024


class Request(Protocol):
    """What is needed of a request; `preforkd.http.request.Request`."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    body: IO[bytes]
    body_length: int


class Response(Protocol):
    """What is needed of a response; `preforkd.http.response.Response`."""

    head_sent: bool
    keep: bool

    @property
    def started(self) -> bool:
        """Tell whether the head is known."""

    def start(self, status: str, headers: Sequence[tuple[str, str]]) -> None:
        """Take the head."""

    def write(self, data: bytes, *, whole: bool = False) -> None:
        """Send a part of the body."""

    def finish(self) -> bool:
        """End the body; False when it was too short."""


class FileWrapper:
    """``wsgi.file_wrapper``: a file as an iterable of blocks."""

    def __init__(self, file: Any, block_size: int = _BLOCK) -> None:
        self._file = file
        self._block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> "FileWrapper":
        return self

    def __next__(self) -> bytes:
        data: bytes = self._file.read(self._block_size)
        if not data:
            raise StopIteration
        return data


def base_environ(sock: socket.socket, peer: Any) -> Environ:
    """Return what the requests of one connection have in common."""
    environ: Environ = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
        "SERVER_SOFTWARE": "preforkd",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "",
    }
    if sock.family != socket.AF_UNIX:
        host, port = sock.getsockname()[:2]
        environ["SERVER_NAME"], environ["SERVER_PORT"] = host, str(port)
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = peer[0], str(peer[1])
    return environ


def environ_for(request: Request, base: Environ) -> Environ:
    """Return the environ of a request."""
    environ = base.copy()
    target = _origin_form(request)
    path, _, query = target.partition(b"?")
    environ["REQUEST_METHOD"] = request.method
    environ["SERVER_PROTOCOL"] = f"HTTP/{request.version}"
    environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["REQUEST_URI"] = environ["RAW_URI"] = request.target.decode("latin-1")
    environ["wsgi.input"] = request.body
    for name, value in request.headers:
        text = value.decode("latin-1")
        if name == b"content-type":
            environ["CONTENT_TYPE"] = text
        elif name not in {b"content-length", b"transfer-encoding"}:
            key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
            if key in environ:
                joint = "; " if name == b"cookie" else ","
                text = f"{environ[key]}{joint}{text}"
            environ[key] = text
        elif name == b"content-length":
            environ["CONTENT_LENGTH"] = text
    if request.body_length and "CONTENT_LENGTH" not in environ:
        # A chunked body is complete by now, and most applications only understand a length.
        environ["CONTENT_LENGTH"] = str(request.body_length)
    return environ


def _origin_form(request: Request) -> bytes:
    # RFC 9112, 3.2.2: the authority of an absolute target replaces the Host header.
    target = request.target
    if target.startswith(b"/") or target == b"*":
        return b"" if target == b"*" else target
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in {b"http", b"https"}:
        authority, slash, path = rest.partition(b"/")
        request.headers[:] = [
            (name, authority if name == b"host" else value) for name, value in request.headers
        ]
        return b"/" + path if slash else b"/"
    return target


def call(application: Application, environ: Environ, response: Response) -> None:
    """Let the application answer one request.

    An application that fails before anything was sent is answered for with 500; one that fails later
    leaves a response that is visibly cut off, never one that looks complete. What ``response`` raises
    because the client has gone is passed on, and so is SystemExit.
    """
    written = False

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and response.head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and response.started:
            raise AssertionError("start_response was called twice without exc_info")
        response.start(status, headers)
        return write

    def write(data: bytes) -> None:
        nonlocal written
        written = True
        response.write(data)

    iterable = application(environ, start_response)
    try:
        if not written and isinstance(iterable, (list, tuple)) and len(iterable) == 1:
            _demand_start(response)
            response.write(iterable[0], whole=True)
        else:
            for data in iterable:
                if data:
                    _demand_start(response)
                    response.write(data)
        _demand_start(response)
        if not response.finish():
            logger.error("the application sent less than its Content-Length; the client sees a cut")
    finally:
        if (close := getattr(iterable, "close", None)) is not None:
            close()


def _demand_start(response: Response) -> None:
    if not response.started:
        raise AssertionError("the application did not call start_response")
