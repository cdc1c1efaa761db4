"""TLS for the worker: a context out of the settings, and a socket that never blocks.

The choice of versions and ciphers is that of Python's ssl.create_default_context().
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
    """Return the context for our side; ``protocols`` are those that are offered (ALPN).

    Certificate and key are paths, or their text as it comes out of a credential. Raises
    ConfigurationError that names the setting.
    """
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if protocols:
        made.set_alpn_protocols(list(protocols))
    # A resumed session saves a handshake, and needs no memory of ours: tickets.
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
    # OpenSSL would wait for who writes to a FIFO, and read a device without an end.
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
    raise ValueError("the key is encrypted; nobody is there to give its password")


def _problem(setting: str, message: str) -> ConfigurationError:
    hint = "a PEM file, readable for preforkd's user; or {credential: NAME} with LoadCredential="
    return ConfigurationError([Problem(UNKNOWN_PLACE, setting, message, hint)])


@contextlib.contextmanager
def _as_path(value: str) -> Iterator[str]:
    if _BEGIN not in value:
        yield value
        return
    # OpenSSL wants a path, and a secret should not touch a disk.
    descriptor = os.memfd_create("preforkd-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


class TlsSocket:
    """What a connection needs of a socket, over TLS; the handshake is made step by step."""

    def __init__(self, sock: socket.socket, settings: ssl.SSLContext) -> None:
        sock.setblocking(False)
        # Who was reset already is found here: wrap_socket() of older Pythons leaves a socket unclosed.
        sock.getpeername()
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.getpeername()  # wrap_socket() would lose the descriptor of one that has gone
        self._sock = settings.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._close_notify_sent = False
        self.wants_write = False
        """The handshake waits for room to send."""

    @property
    def socket(self) -> ssl.SSLSocket:
        """The socket of Python's module ssl."""
        return self._sock

    def handshake(self) -> bool:
        """Make the next step; True when it is done. Raises OSError."""
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
            return b""  # the client closed the connection without saying goodbye, as most do

    def send(self, data: Any, _flags: int = 0, /) -> int:
        """See `preforkd.worker.wsgi.connection.Socket`."""
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def has_decrypted(self) -> bool:
        """Tell whether bytes have been decrypted that nobody has taken; no event tells of them."""
        return self._sock.pending() > 0

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def shutdown(self, how: int, /) -> None:
        """Say goodbye as far as it goes without waiting, then end the sending (shutdown(2))."""
        self._close_notify_sent = True
        with contextlib.suppress(OSError, ValueError):
            self._sock.unwrap()
        with contextlib.suppress(OSError):
            self._sock.shutdown(how)

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option of the socket below."""
        self._sock.setsockopt(level, name, value)

    def close_after_fork(self) -> None:
        """Close this process's copy without a word to the client."""
        os.close(self._sock.detach())

    def close(self) -> None:
        """Close it, with a goodbye as far as that goes without waiting."""
        if not self._close_notify_sent and self._sock.version() is not None:
            self.shutdown(socket.SHUT_WR)
        self._sock.close()
