"""Whether WebSockets can be served: the library ``websockets`` is an extra."""

import importlib
import logging
from functools import cache
from types import ModuleType

from preforkd.http.head import RequestError

logger = logging.getLogger("preforkd.worker")

MISSING = RequestError("501 Not Implemented", "WebSockets are not supported by this server")
"""The refusal of a handshake where the library is not installed."""


@cache
def load() -> ModuleType | None:
    """Return `preforkd.worker.asgi.websocket`; None without the library, which is logged once."""
    try:
        return importlib.import_module("preforkd.worker.asgi.websocket")
    except ImportError as error:
        logger.warning(
            "WebSockets are answered with 501: %s; to serve them, "
            "pip install 'preforkd[asgi]' into the application's environment",
            error,
        )
        return None
