"""Where to listen: ``host:port``, ``[v6]:port``, ``:port`` or ``unix:/path``."""

import re
from typing import Any

from msgspec import Struct

_MAPPED = "::ffff:"
"""The prefix of an IPv4 address that an IPv6 socket reports. RFC 4291, section 2.5.5.2"""
_PATH_LIMIT = 107
"""Longest path of a Unix socket in bytes, without the final NUL. unix(7)"""


class TcpAddress(Struct, frozen=True):
    """A TCP address; ``host`` None: all addresses of the machine, IPv4 and IPv6."""

    host: str | None
    port: int


class UnixAddress(Struct, frozen=True):
    """The absolute path of a Unix socket."""

    path: str


def parse_address(text: str) -> TcpAddress | UnixAddress:
    """Return the address that a text names. Raises ValueError with a message for the administrator."""
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    if text.startswith("/"):
        raise ValueError(f"{text!r} is a path: write unix:{text}")
    if text.isdecimal():
        raise ValueError(f"{text!r} has no colon: write :{text} for all addresses, or HOST:{text}")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: for example {text}:8080")
    if text.startswith("["):
        if not host.endswith("]"):
            raise ValueError(f"{text!r} is not [address]:port, for example [::1]:8080")
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(
            f"{text!r}: an IPv6 address is written in brackets, for example [::1]:8080"
        )
    if host and not re.fullmatch(r"[\w.:%-]+", host):
        raise ValueError(f"{host!r} is not a host name or an IP address")
    return TcpAddress(host or None, _port(port))


def _unix(path: str) -> UnixAddress:
    if not path.startswith("/"):
        raise ValueError(f"unix:{path}: the path must be absolute, for example unix:/run/web.sock")
    if "\0" in path:
        raise ValueError("the path contains a NUL character")
    if len(path.encode()) > _PATH_LIMIT:
        raise ValueError(f"unix:{path}: a socket's path has at most {_PATH_LIMIT} bytes")
    return UnixAddress(path)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is not a port: a number from 1 to 65535")
    return int(text)


def as_ipv4(address: Any) -> Any:
    """Return the peer address of a socket with an IPv4-mapped IPv6 host as IPv4; others unchanged."""
    host: str = address[0]
    if host.startswith(_MAPPED) and ":" not in (mapped := host[len(_MAPPED) :]):
        return mapped, address[1]
    return address
