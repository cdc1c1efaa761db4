"""TLS for the worker: the server's context, and a socket that never blocks.

Versions and ciphers are those of Python's ssl.create_default_context().
"""

import contextlib
import errno
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from typing import Any

from preforkd.config.settings import TlsSettings as Settings
from preforkd.errors import UNKNOWN_PLACE, ConfigurationError, Problem

_BEGIN = "-----BEGIN"


def server_context(
    settings: Settings, protocols: tuple[str, ...] = ("http/1.1",)
) -> ssl.SSLContext:
    """Return the server's context; ``protocols`` are offered by ALPN.

    Certificate and key are paths, or PEM text from a credential. Raises ConfigurationError that names the
    setting.
    """
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if protocols:
        made.set_alpn_protocols(list(protocols))
    # Sessions are resumed by tickets, which need no memory of the server.
    key = settings.key or settings.certificate
    with _as_path(settings.certificate) as certificate, _as_path(key) as key_path:
        for setting, path in (("tls.certificate", certificate), ("tls.key", key_path)):
            try:
                _require_regular_file(path)
            except OSError as error:
                raise _problem(setting, f"{path}: {error.strerror}") from error
        try:
            made.load_cert_chain(certificate, key_path, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            names = " and ".join(dict.fromkeys(map(_name, (settings.certificate, key))))
            reason = getattr(error, "reason", None) or str(error) or "not in PEM format"
            message = f"certificate and key cannot be used ({names}): {reason}"
            raise _problem("tls.certificate", message) from error
    return made


def _require_regular_file(path: str) -> None:
    # OpenSSL would block on a FIFO without a writer, and read a device without an end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _name(value: str) -> str:
    return "a credential" if _BEGIN in value else value


def _no_password() -> str:
    raise ValueError("the key is encrypted, and no password can be entered")


def _problem(setting: str, message: str) -> ConfigurationError:
    hint = "a PEM file, readable for preforkd's user; or {credential: NAME} with LoadCredential="
    return ConfigurationError([Problem(UNKNOWN_PLACE, setting, message, hint)])


@contextlib.contextmanager
def _as_path(value: str) -> Iterator[str]:
    if _BEGIN not in value:
        yield value
        return
    # OpenSSL reads paths only, and a secret must not be written to a disk.
    descriptor = os.memfd_create("preforkd-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


class TlsSocket:
    """A TLS socket with the methods of `preforkd.worker.wsgi.connection.Socket`; it never blocks."""

    def __init__(self, sock: socket.socket, settings: ssl.SSLContext) -> None:
        sock.setblocking(False)
        # Raises for a connection that was reset: wrap_socket() of older Pythons would leave it unclosed.
        sock.getpeername()
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.getpeername()  # again, as it may have been reset since: wrap_socket() would leak its descriptor
        self._sock = settings.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._close_notify_sent = False
        self.wants_write = False
        """The handshake waits until the socket is writable."""

    @property
    def socket(self) -> ssl.SSLSocket:
        """The underlying `ssl.SSLSocket`."""
        return self._sock

    def handshake(self) -> bool:
        """Advance the handshake; return whether it is complete. Raises OSError."""
        self.wants_write = False
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return False
        return True

    def recv(self, size: int, _flags: int = 0, /) -> bytes:
        """See `preforkd.worker.wsgi.connection.Socket`."""
        try:
            return self._sock.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return b""  # the client closed the connection without close_notify, as most do

    def send(self, data: Any, _flags: int = 0, /) -> int:
        """See `preforkd.worker.wsgi.connection.Socket`."""
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def has_decrypted(self) -> bool:
        """Return whether decrypted bytes wait to be received; epoll does not report them."""
        return self._sock.pending() > 0

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def shutdown(self, how: int, /) -> None:
        """Send close_notify if that does not block, then end the sending side."""
        self._close_notify_sent = True
        with contextlib.suppress(OSError, ValueError):
            self._sock.unwrap()
        with contextlib.suppress(OSError):
            self._sock.shutdown(how)

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option of the underlying socket."""
        self._sock.setsockopt(level, name, value)

    def close_after_fork(self) -> None:
        """Close this process's copy without sending anything to the client."""
        os.close(self._sock.detach())

    def close(self) -> None:
        """Close the socket; send close_notify first if that does not block."""
        if not self._close_notify_sent and self._sock.version() is not None:
            self.shutdown(socket.SHUT_WR)
        self._sock.close()
