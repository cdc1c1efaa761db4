"""Where to listen: ``host:port``, ``[v6]:port``, ``:port`` or ``unix:/path``."""

import re
from typing import Any

from msgspec import Struct

_MAPPED = "::ffff:"
"""How an IPv4 address begins that a socket for IPv6 tells."""
_PATH_LIMIT = 107
"""Bytes of a socket's path, its final NUL not counted. unix(7)"""


class TcpAddress(Struct, frozen=True):
    """A TCP address; ``host`` None is every address of the machine, v4 and v6."""

    host: str | None
    port: int


class UnixAddress(Struct, frozen=True):
    """The absolute path of a Unix socket."""

    path: str


def parse_address(text: str) -> TcpAddress | UnixAddress:
    """Return the address that the text names. Raises ValueError that says what is wrong with it."""
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    if text.startswith("/"):
        raise ValueError(f"{text!r} is a path: write unix:{text}")
    if text.isdecimal():
        raise ValueError(f"{text!r} has no colon: write :{text} for every address, or a host too")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port: write for example {text}:8080")
    if text.startswith("["):
        if not host.endswith("]"):
            raise ValueError(f"{text!r} is not [address]:port, for example [::1]:8080")
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, for example [::1]:8080")
    if host and not re.fullmatch(r"[\w.:%-]+", host):
        raise ValueError(f"{host!r} is not the name or the address of a host")
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
    """Return an IPv4 address as a socket for IPv4 tells it, where one for IPv6 has told it; others as they are.

    RFC 4291, section 2.5.5.2.
    """
    host: str = address[0]
    if host.startswith(_MAPPED) and ":" not in (mapped := host[len(_MAPPED) :]):
        return mapped, address[1]
    return address
