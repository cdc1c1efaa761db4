"""Warm-up: functions and requests that run once in the zygote, before the first fork.

Lazy imports, templates and caches are then loaded once and shared, instead of once in each worker. An entry
is ``MODULE:FUNCTION``, which is called without arguments, or a path or URL, which the WSGI application gets
as a GET request (PEP 3333); its answer is read to the end and closed.
"""

import contextlib
import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from preforkd.apps import loader, signatures, wsgi
from preforkd.config.target import is_request, parse_reference
from preforkd.errors import ApplicationError, PreforkdError

logger = logging.getLogger("preforkd.app")

SETTING = "app.warm_up"
FLAG = "preforkd.warm_up"
"""A key of the environ that is true in these requests."""


@dataclass(frozen=True, slots=True)
class _WarmUpHead:
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    method: str = "GET"
    version: str = "1.1"


def run(entries: Iterable[str], application: Any, *, required: bool, prefix: str = "") -> None:
    """Run the entries in their order; requests are below the mount prefix.

    A failure is logged as one warning and does not stop the others. ``required``: raises ApplicationError
    (ConfigurationError for a function that does not exist) instead.
    """
    for entry in entries:
        try:
            _request(entry, application, prefix) if is_request(entry) else _call(entry)
        except PreforkdError as error:
            if required:
                raise
            logger.warning("%s: %s", SETTING, error.message)


def repeat(entries: Iterable[str], application: Any, prefix: str = "") -> None:
    """Send the requests among the entries once more; failures were logged by `run`."""
    for entry in filter(is_request, entries):
        with contextlib.suppress(PreforkdError):
            _request(entry, application, prefix)


def _call(entry: str) -> None:
    function = loader.find(parse_reference(entry), SETTING)
    if not callable(function):
        kind = type(function).__name__
        raise loader.setting_error(SETTING, f"{entry} is not callable, it is of type {kind}")
    if signatures.is_async(function):
        raise loader.setting_error(
            SETTING, f"{entry} is asynchronous; warm-up functions are not awaited"
        )
    try:
        function()
    except (Exception, SystemExit) as error:
        raise loader.application_error(f"{entry} failed", error) from error


def _request(entry: str, application: Any, prefix: str) -> None:
    try:
        code, reason = _answer(application, _environ(entry, prefix))
    except (Exception, SystemExit) as error:
        raise loader.application_error(f"the application failed on GET {entry}", error) from error
    if code >= 400:
        hint = ""
        if code == 400:
            hint = "if it does not know the host localhost, write a URL: https://shop.example/"
        message = f"GET {entry} was answered with {code} {reason}"
        raise ApplicationError(message + (f" ({hint})" if hint else ""))


def _environ(entry: str, prefix: str) -> dict[str, Any]:
    parts = urlsplit(entry)
    secure = parts.scheme == "https"
    host = parts.netloc or "localhost"
    port = str(parts.port or (443 if secure else 80))
    base = wsgi.base_environ(parts.hostname or "localhost", port, secure=secure, threads=False)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = ((b"host", host.encode()), (b"user-agent", b"preforkd"), (b"accept", b"*/*"))
    environ = wsgi.environ_for(_WarmUpHead(target.encode(), headers), base)
    if prefix:
        wsgi.mount(environ, prefix)
    environ["REMOTE_ADDR"] = "127.0.0.1"
    environ["wsgi.input"] = io.BytesIO()
    environ[FLAG] = True
    return environ


def _answer(application: Any, environ: dict[str, Any]) -> tuple[int, str]:
    statuses: list[str] = []

    def start_response(status: str, *_headers: object) -> Any:
        statuses.append(status)
        return len  # write() of PEP 3333: the data is dropped

    iterable = application(environ, start_response)
    try:
        for _ in iterable:
            pass
    finally:
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
    if not statuses:
        raise AssertionError("the application did not call start_response")
    code, _, reason = statuses[-1].partition(" ")
    return int(code), reason
