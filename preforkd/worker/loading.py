"""With ``app.preload: false``: the worker loads the application itself, before it reports that it is ready."""

import contextlib
import logging
import time
from typing import Any

from preforkd.apps import loading
from preforkd.apps.hooks import Hooks
from preforkd.config.settings import Settings
from preforkd.linux import memory
from preforkd.linux.unpatched import UnpatchedModules
from preforkd.logs import logs

logger = logging.getLogger("preforkd.worker")


def load(kind: str, settings: Settings, descriptors: list[int]) -> tuple[Any, Hooks]:
    """Load the application, and log what that cost; return it with its hooks.

    ``descriptors``: those of the worker, which the application may not close. Raises what
    `preforkd.apps.loading.load` raises.
    """
    begun, before = time.monotonic(), _private_memory()
    unpatched_modules = UnpatchedModules()
    ours = loading.identities(descriptors)
    application, hooks = loading.load(settings, unpatched_modules)
    unpatched_modules.restore()
    loading.refuse_greenlets(kind, settings, unpatched_modules)
    loading.check_descriptors(ours)
    # Again: the application may have configured logging.
    logs.configure(settings.log.level, settings.log.target)
    logger.info(
        "loaded the application in %.2f s; it uses %.0f MB that other workers do not share",
        time.monotonic() - begun,
        (_private_memory() - before) / 1e6,
    )
    hooks.call("after_fork")
    return application, hooks


def _private_memory() -> int:
    with contextlib.suppress(OSError):
        return memory.usage().private
    return 0  # no /proc
