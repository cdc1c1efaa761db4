"""TLS for the worker: the server's contexts, a socket that never blocks, and what is known of a client."""

import contextlib
import errno
import os
import re
import socket
import ssl
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from preforkd.config.settings import TlsSettings as Settings
from preforkd.errors import UNKNOWN_PLACE, ConfigurationError, Problem

_BEGIN = "-----BEGIN"
_PEM_HINT = "a PEM file, readable for preforkd's user; or {credential: NAME} with LoadCredential="
_ENCRYPTED_HINT = "set tls.key_password to {credential: NAME}, with LoadCredential= in the unit"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY_MODES = {
    "off": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


_made: dict[tuple[str, ...], tuple[Settings, ssl.SSLContext]] = {}
"""The last context for these protocols."""


def server_context(
    settings: Settings, protocols: tuple[str, ...] = ("http/1.1",)
) -> ssl.SSLContext:
    """Return the server's context, made once in a process and its children; ``protocols`` are offered by ALPN.

    The zygote makes it. So its workers do not read the files, which may be half replaced when one is started
    later, and a client resumes a session with each of them: the tickets, which need no memory of the server, are
    encrypted with a key of the context.

    A client that requests one of ``tls.certificates`` by SNI (RFC 6066, section 3) gets that one. Certificates
    and keys are paths, or PEM text from a credential. What the settings leave open is as in Python's
    ssl.create_default_context(). Raises ConfigurationError that names the setting.
    """
    known = _made.get(protocols)
    if known is not None and known[0] == settings:
        return known[1]
    made = _context(settings, protocols, _default_pair(settings))
    hosts = {
        name.lower(): _context(settings, protocols, _Pair(file, file, setting, setting))
        for name, file in settings.certificates.items()
        for setting in (f"tls.certificates.{name}",)
    }
    if hosts:
        made.sni_callback = partial(_choose, hosts)
    _made[protocols] = settings, made
    return made


class _Pair(NamedTuple):
    """A certificate and its key, with the settings that hold them."""

    certificate: str
    key: str
    setting: str
    key_setting: str


def _default_pair(settings: Settings) -> _Pair:
    certificate, key = settings.certificate, settings.key
    setting = "tls.certificate"
    return _Pair(certificate, key or certificate, setting, "tls.key" if key else setting)


def _choose(
    hosts: Mapping[str, ssl.SSLContext],
    connection: ssl.SSLSocket | ssl.SSLObject,
    name: str | None,
    _default: ssl.SSLContext,
    /,
) -> None:
    name = (name or "").lower()
    chosen = hosts.get(name) or hosts.get("*." + name.partition(".")[2])
    if chosen is not None:
        connection.context = chosen


def _context(settings: Settings, protocols: tuple[str, ...], pair: _Pair) -> ssl.SSLContext:
    # All settings apply to each context: of the first one, only the certificate would be replaced by SNI.
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if protocols:
        made.set_alpn_protocols(list(protocols))
    made.minimum_version = _VERSIONS[settings.minimum_version]
    if settings.ciphers:
        try:
            made.set_ciphers(settings.ciphers)
        except ssl.SSLError as error:
            message = f"{settings.ciphers!r} names no cipher of TLS 1.2"
            hint = "a list as in openssl-ciphers(1), for example ECDHE+AESGCM"
            raise _problem("tls.ciphers", message, hint) from error
    made.verify_mode = _VERIFY_MODES[settings.verify]
    if settings.client_ca:
        _load_authorities(made, settings.client_ca)
    _load(made, pair, settings.key_password)
    return made


def _load(made: ssl.SSLContext, pair: _Pair, password: str) -> None:
    certificate, key, setting, key_setting = pair
    asked = False

    def give_password() -> str:
        nonlocal asked
        asked = True
        if not password:
            raise ValueError("the key is encrypted")
        return password

    with _as_path(setting, certificate) as chain_path, _as_path(key_setting, key) as key_path:
        try:
            made.load_cert_chain(chain_path, key_path, password=give_password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error) or "not in PEM format"
            if asked and not password:
                message = f"the key is encrypted ({_name(key)})"
                raise _problem(key_setting, message, _ENCRYPTED_HINT) from error
            if asked and reason != "KEY_VALUES_MISMATCH":
                message = f"the key cannot be decrypted with it ({_name(key)}): {reason}"
                raise _problem("tls.key_password", message, "the password of this key") from error
            names = " and ".join(dict.fromkeys(map(_name, (certificate, key))))
            message = f"certificate and key cannot be used ({names}): {reason}"
            raise _problem(setting, message, _PEM_HINT) from error


def _load_authorities(made: ssl.SSLContext, authorities: str) -> None:
    setting = "tls.client_ca"
    with _as_path(setting, authorities) as path:
        try:
            made.load_verify_locations(path)
        except ssl.SSLError as error:
            message = f"it has no certificate ({_name(authorities)}): {error.reason}"
            raise _problem(setting, message, _PEM_HINT) from error


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


def _problem(setting: str, message: str, hint: str) -> ConfigurationError:
    return ConfigurationError([Problem(UNKNOWN_PLACE, setting, message, hint)])


@contextlib.contextmanager
def _as_path(setting: str, value: str) -> Iterator[str]:
    """Yield the path to read a setting's value from. Raises ConfigurationError if it is no regular file."""
    if _BEGIN not in value:
        try:
            _require_regular_file(value)
        except OSError as error:
            raise _problem(setting, f"{value}: {error.strerror}", _PEM_HINT) from error
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
    """A TLS socket with the methods of `preforkd.worker.wsgi.sockets.Socket`; it never blocks."""

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
        """See `preforkd.worker.wsgi.sockets.Socket`."""
        try:
            return self._sock.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return b""  # the client closed the connection without close_notify, as most do

    def send(self, data: Any, _flags: int = 0, /) -> int:
        """See `preforkd.worker.wsgi.sockets.Socket`."""
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def environ(self) -> dict[str, str]:
        """Return what the environ of a request has besides, when the handshake is complete."""
        return client_facts(self._sock).environ()

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


class ClientFacts(NamedTuple):
    """What is known of a TLS connection and its client; empty texts: the client has shown no certificate.

    Names are in the form of RFC 4514, in ASCII, as nginx and Apache's mod_ssl pass them on.
    """

    version: str
    cipher: str
    cipher_suite: int | None
    """IANA's number of the cipher."""
    certificate: str
    """The client's certificate in PEM format, which one of ``tls.client_ca`` has signed."""
    subject: str
    issuer: str
    serial: str

    def environ(self) -> dict[str, str]:
        """Return the variables for WSGI, with the names of mod_ssl."""
        facts = {
            "SSL_PROTOCOL": self.version,
            "SSL_CIPHER": self.cipher,
            "SSL_CLIENT_VERIFY": "SUCCESS" if self.certificate else "NONE",
        }
        if self.certificate:
            facts["SSL_CLIENT_S_DN"] = self.subject
            facts["SSL_CLIENT_I_DN"] = self.issuer
            facts["SSL_CLIENT_M_SERIAL"] = self.serial
            facts["SSL_CLIENT_CERT"] = self.certificate
        return facts

    def extension(self) -> dict[str, Any]:
        """Return the extension ``tls`` of an ASGI scope; ``server_cert`` is not known to Python's ssl."""
        return {
            "server_cert": None,
            "client_cert_chain": [self.certificate] if self.certificate else [],
            "client_cert_name": self.subject or None,
            "client_cert_error": None,
            "tls_version": _VERSION_NUMBERS.get(self.version),
            "cipher_suite": self.cipher_suite,
        }


_VERSION_NUMBERS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_ATTRIBUTES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
"""Their short names: RFC 4514, section 3."""
_SPECIAL = re.compile(rb'[\\",+;<>]|\A[ #]| \Z|[^ -~]')
_suites: dict[str, int] = {}


def client_facts(connection: ssl.SSLSocket | ssl.SSLObject) -> ClientFacts:
    """Return the facts of a connection whose handshake is complete."""
    version, (cipher, _, _) = connection.version() or "", connection.cipher() or ("", "", 0)
    if cipher not in _suites:
        known: list[Any] = connection.context.get_ciphers()
        _suites.update((one["name"], one["id"] & 0xFFFF) for one in known)
    encoded = connection.getpeercert(binary_form=True)
    if encoded is None:
        return ClientFacts(version, cipher, _suites.get(cipher), "", "", "", "")
    facts: Any = connection.getpeercert()
    return ClientFacts(
        version,
        cipher,
        _suites.get(cipher),
        ssl.DER_cert_to_PEM_cert(encoded),
        _distinguished_name(facts["subject"]),
        _distinguished_name(facts["issuer"]),
        facts["serialNumber"],
    )


def _distinguished_name(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    # The last part comes first: RFC 4514, section 2.1; within a part as in OpenSSL.
    return ",".join(
        "+".join(f"{_ATTRIBUTES.get(kind, kind)}={_escaped(value)}" for kind, value in part[::-1])
        for part in reversed(name)
    )


def _escaped(value: str) -> str:
    return _SPECIAL.sub(_escape, value.encode()).decode("ascii")


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\" + (match[0] if b" " <= match[0] <= b"~" else match[0].hex().upper().encode())
