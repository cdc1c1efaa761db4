"""The PROXY header that precedes HTTP, or the TLS handshake, on a connection of the event loop."""

import logging
import socket
from collections.abc import Callable
from typing import Any

from preforkd.http.proxy_header import ProxyHeaderError
from preforkd.worker.asgi.shared import Shared
from preforkd.worker.asgi.timer import Waiting
from preforkd.worker.listener_context import HttpListener
from preforkd.worker.openings import Opening

logger = logging.getLogger("preforkd.worker")


class ProxiedOpening:
    """A connection whose PROXY header is received; then ``on_end`` is called, once.

    It gets this object, the client that the header names, and whether the header was valid.
    """

    def __init__(
        self,
        shared: Shared,
        sock: socket.socket,
        client: tuple[str, int] | None,
        listener: HttpListener,
        on_end: Callable[..., Any],
    ) -> None:
        self.sock = sock
        self.listener = listener
        self.waiting: Waiting | None = None
        self._shared = shared
        self._client = client
        self._on_end = on_end
        self._opening = Opening(sock, proxied=True, context=None)
        shared.timer.set(self, Waiting.OPENING)
        shared.loop.add_reader(sock.fileno(), self.advance)

    def advance(self) -> None:
        """Receive what has arrived of the header."""
        try:
            if self._opening.step():
                return
        except (OSError, ProxyHeaderError) as error:
            logger.debug("connection from %s: %s", self._client, error)
            self._end(done=False)
            return
        if self._opening.source is not None:
            address, port = self._opening.source
            self._client = address, int(port)
        self._end(done=True)

    def on_deadline(self, _kind: Waiting) -> None:
        """Close the connection: the header did not arrive in time."""
        logger.debug("connection from %s: the PROXY header did not arrive", self._client)
        self._end(done=False)

    def cancel(self) -> None:
        """Close the connection: the drain ends."""
        self._end(done=False)

    def _end(self, *, done: bool) -> None:
        self._shared.timer.clear(self)
        self._shared.loop.remove_reader(self.sock.fileno())
        self._on_end(self, self._client, done=done)
