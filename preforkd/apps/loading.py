"""Loading an application with its hooks: in the zygote, or with ``app.preload: false`` in each worker."""

import logging
import os
import signal
from typing import Any

from preforkd.apps import hooks, lazy_imports, loader, warmup
from preforkd.apps.hooks import Hooks
from preforkd.config.kinds import KINDS
from preforkd.config.settings import Settings
from preforkd.config.target import parse_target
from preforkd.errors import ApplicationError
from preforkd.linux import process
from preforkd.linux.unpatched import UnpatchedModules

logger = logging.getLogger("preforkd.app")

Identity = tuple[int, int, int]
"""A descriptor's number, and the device and inode of its file; both zero if it is closed."""


def load(settings: Settings, unpatched_modules: UnpatchedModules) -> tuple[Any, Hooks]:
    """Import the application of ``app.target`` and its hooks, and warm it up; return both.

    The directory has been entered by `loader.prepare`. Raises ConfigurationError, ApplicationError and
    SystemFailure, see `loader.load`.
    """
    app = settings.app
    target = parse_target(app.target)
    application = loader.load(target)
    unpatched_modules.restore()
    found = hooks.load(settings.hooks, target.kind, preload=app.preload)
    required, prefix = app.warm_up_required, settings.http.prefix
    warmup.run(app.warm_up, application, required=required, prefix=prefix)
    if app.preload:
        lazy_imports.resolve()
        found.call("zygote_loaded")
    # The application may have installed handlers of its own.
    process.ignore_master_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return application, found


def refuse_greenlets(kind: str, settings: Settings, unpatched_modules: UnpatchedModules) -> None:
    """Raise ApplicationError if greenlets replace the threads that the workers need."""
    package = unpatched_modules.greenlet_package()
    if not package:
        return
    if KINDS[kind].event_loop:
        raise ApplicationError(
            f"{package} has replaced threads and selectors of the standard library (a monkey patch): asyncio, "
            "which an ASGI application runs in, does not work with them",
            hint=f"remove the patch, or serve a WSGI application with {package} (app.target: wsgi:…)",
        )
    if settings.workers.threads > 1:
        raise ApplicationError(
            f"{package} has replaced threads of the standard library (a monkey patch): its greenlets cannot be "
            f"used by the {settings.workers.threads} threads of workers.threads",
            hint="leave workers.threads out and let workers.count be larger, or remove the patch",
        )
    logger.info(
        "%s has replaced parts of the standard library: its greenlets run while a request waits, and a "
        "worker answers one request at a time",
        package,
    )


def identities(descriptors: list[int]) -> list[Identity]:
    """Return the identity of each descriptor."""
    found = []
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
        except OSError:
            found.append((descriptor, 0, 0))
        else:
            found.append((descriptor, status.st_dev, status.st_ino))
    return found


def check_descriptors(ours: list[Identity]) -> None:
    """Raise ApplicationError if the application has closed or replaced one of these."""
    if identities([descriptor for descriptor, _, _ in ours]) != ours:
        raise ApplicationError(
            "the application has closed descriptors that are not its own while it was loaded",
            hint="it must not become a daemon, nor close what it did not open (os.closerange)",
        )
