"""Openings: what precedes HTTP, or a handler's bytes, on a connection.

The same for all kinds: admission, the PROXY header, the TLS handshake, in this order. On a listener with the
PROXY protocol only the peers of ``proxy.trusted`` are admitted. An opening never blocks and has no clock:
its owner waits for the event that `Opening.step` returns, and bounds the time by ``http.header_timeout``.
"""

import logging
import select
import socket
from typing import TYPE_CHECKING

from preforkd.http.forwarded import Trust
from preforkd.http.proxy_header import ProxyHeader

if TYPE_CHECKING:
    import ssl

    from preforkd.worker.tls import TlsSocket

logger = logging.getLogger("preforkd.worker")

_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


def admits(trust: Trust, remote: str) -> bool:
    """Return whether a peer may send a PROXY header, and log the one that may not.

    ``remote`` is its address, empty for a Unix socket.
    """
    if trust.trusts(remote):
        return True
    logger.warning("connection from %s refused: not in proxy.trusted", remote or "unix")
    return False


class Opening:
    """The opening of one connection whose peer was admitted.

    ``proxied``: it begins with a PROXY header. ``context``: TLS follows; None: it does not.
    """

    __slots__ = ("_context", "_header", "secure", "sock", "source")

    def __init__(
        self, sock: socket.socket, *, proxied: bool, context: "ssl.SSLContext | None"
    ) -> None:
        self.sock = sock
        """The socket to read from when the opening is complete; with TLS an SSLSocket, which never blocks."""
        self.secure: TlsSocket | None = None
        """The same with TLS."""
        self.source: tuple[str, str] | None = None
        """Address and port of the client that the proxy named; None: the peer is the client."""
        self._header = ProxyHeader() if proxied else None
        self._context = context

    def step(self) -> int:
        """Advance without blocking; return the epoll event to wait for, 0 when the opening is complete.

        Not called again after 0. Raises ProxyHeaderError, and OSError when the client has left or TLS failed;
        the connection is closed then.
        """
        if self._header is not None:
            if not self._read_header(self._header):
                return select.EPOLLIN
            self.source = self._header.source
            self._header = None
        if self._context is None:
            return 0
        if self.secure is None:
            from preforkd.worker.tls import TlsSocket  # noqa: PLC0415 - OpenSSL only where TLS is on

            self.secure = TlsSocket(self.sock, self._context)
            self.sock = self.secure.socket
        if self.secure.handshake():
            return 0
        return select.EPOLLOUT if self.secure.wants_write else select.EPOLLIN

    def _read_header(self, header: ProxyHeader) -> bool:
        sock = self.sock
        while not header.done:
            try:
                count = header.peek(sock.recv(4096, _PEEK))
                data = sock.recv(count, socket.MSG_DONTWAIT) if count else b""
            except BlockingIOError:
                return False
            if not data:
                raise ConnectionResetError("the proxy left within its header")
            header.take(data)
        return True
