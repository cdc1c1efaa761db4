"""Check what every worker needs, before the first fork and in ``preforkd check --import``.

A lack is then reported once, instead of by each worker until the start is given up. No file is created.
"""

import logging
import os
import tempfile

from preforkd.config.kinds import KINDS
from preforkd.config.settings import Settings
from preforkd.errors import UNKNOWN_PLACE, ConfigurationError, Problem, SystemFailure
from preforkd.logs import access_log

logger = logging.getLogger("preforkd.worker")

_SHARED = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108 - where Python's tempfile looks as well


def check(kind: str, settings: Settings) -> None:
    """Check what the workers of this kind need with these settings.

    Raises ConfigurationError (a certificate that cannot be used, a Server header that cannot be sent) and
    SystemFailure (an access log that cannot be opened, no directory for temporary files).
    """
    if any(listener.tls for listener in settings.listen):
        from preforkd.worker import tls  # noqa: PLC0415 - OpenSSL only where TLS is on

        if KINDS[kind].http:
            tls.server_context(settings.tls)
        else:
            tls.server_context(settings.tls, ())
    if not KINDS[kind].http:
        return
    if KINDS[kind].spools:
        _check_temporary_directory()
    access_log.check_writable(settings.access_log)
    _check_server_header(settings.http.server)


def _check_server_header(server: str) -> None:
    from preforkd.http.response import Renderer  # noqa: PLC0415 - not for streams

    try:
        Renderer(server).plain("200 OK", "", keep=False)
    except ValueError as error:
        raise ConfigurationError([Problem(UNKNOWN_PLACE, "http.server", str(error))]) from error


def _check_temporary_directory() -> None:
    before = tempfile.tempdir
    try:
        with tempfile.TemporaryFile():
            found = tempfile.gettempdir()
    except OSError as error:
        directories = [os.environ.get("TMPDIR", ""), *_SHARED]
        reason = f"no temporary directory for large requests and answers: {error.strerror}"
        if any(os.access(one, os.W_OK | os.X_OK) for one in directories if one):
            logger.warning("%s; they are refused until there is space", reason)
            return  # a full disk may have space later
        hint = "set TMPDIR (app.environment) to a directory that preforkd may write to"
        raise SystemFailure(reason, hint=hint) from error
    finally:
        tempfile.tempdir = before  # the application may set another directory
    wanted = os.environ.get("TMPDIR", "")
    if wanted and os.path.realpath(wanted) != os.path.realpath(found):
        logger.warning(
            "TMPDIR=%s is not writable; temporary files are created in %s", wanted, found
        )
