"""The client as a proxy reports it by forwarded headers, and which peers are trusted to report it.

RFC 7239; the de facto X-Forwarded-For, -Proto, -Host, -Port and -Prefix. They are believed from trusted peers
only, as any client can send them, and only those that the administrator names: a proxy passes on the others.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from preforkd.config.peers import parse_peers, unmapped
from preforkd.config.prefix import parse_prefix
from preforkd.http.head import RequestHead
from preforkd.http.lines import is_authority

_FORWARDING = re.compile(rb"forwarded|x-forwarded(-.*)?|x-real-ip")
_PAIR = re.compile(
    r'[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=(?:([!#$%&\'*+\-.^_`|~0-9A-Za-z:\[\]]+)|"([^"\\]*)")[ \t]*'
)
_PORT = re.compile(r"0*[1-9][0-9]{0,4}")
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[\w.-]+)?|([0-9.]+)(?::[\w.-]+)?|([0-9A-Fa-f:.]+)")


class Trust:
    """The trusted peers: networks, single addresses, and ``unix`` for every Unix socket."""

    def __init__(self, entries: Iterable[str]) -> None:
        peers = [parse_peers(entry) for entry in entries]
        self.unix = None in peers
        self._networks = [network for network in peers if network is not None]
        self.trusts = lru_cache(4096)(self._trusts)

    def __bool__(self) -> bool:
        return self.unix or bool(self._networks)

    def _trusts(self, address: str) -> bool:
        """Return whether a peer is trusted; the address of a Unix socket is empty."""
        if not address:
            return self.unix
        try:
            ip = unmapped(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        return any(ip.version == net.version and ip in net for net in self._networks)


@dataclass(frozen=True, slots=True)
class Origin:
    """What trusted proxies reported of the client and of the request that it sent; None: not reported."""

    address: str | None = None
    scheme: str | None = None
    host: str | None = None
    """The host that the client addressed, without port."""
    port: str | None = None
    """The port that the client addressed."""
    authority: bytes | None = None
    """The Host header with reported host and port."""
    prefix: str = ""
    """The mount prefix: ``http.prefix``, unless a proxy reported another one."""


def without_forwarding(head: RequestHead) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers without those by which a client could pose as a proxy."""
    return tuple(field for field in head.headers if not _FORWARDING.fullmatch(field[0]))


def with_host(head: RequestHead, authority: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers with another Host."""
    if head.first(b"host") is None:
        return (*head.headers, (b"host", authority))
    return tuple((k, authority) if k == b"host" else (k, value) for k, value in head.headers)


def forwarded(
    head: RequestHead,
    style: str,
    trust: Trust,
    parameters: Collection[str] = ("for", "proto"),
    prefix: str = "",
) -> Origin:
    """Return what the trusted proxies reported, in the ``forwarded`` or the ``x-forwarded`` style.

    ``parameters``: those that are taken, of for, proto, host, port and prefix. ``prefix``: the mount prefix if
    none is reported. The addresses are read from the nearest proxy outwards; the first that is not trusted is
    the client. Of all other parameters the nearest proxy's value counts. Malformed values count as not reported.
    """
    names: Iterable[str]
    if style == "forwarded":
        elements = _elements(",".join(_values(head, b"forwarded")))
        nearest = _pairs(elements[-1])
        names = (_pairs(element).get("for", "") for element in reversed(elements))
    else:
        nearest = {name: _last(head, b"x-forwarded-" + name.encode()) for name in parameters}
        names = reversed(",".join(_values(head, b"x-forwarded-for")).split(","))
    nearest = {name: nearest.get(name, "") for name in parameters}
    scheme = nearest.get("proto", "").lower()
    host, port, authority = _addressed(head, nearest.get("host", ""), nearest.get("port", ""))
    return Origin(
        address=_client(names, trust) if "for" in nearest else None,
        scheme=scheme if scheme in {"http", "https"} else None,
        host=host,
        port=port,
        authority=authority,
        prefix=_prefix(nearest.get("prefix", ""), prefix),
    )


def _client(names: Iterable[str], trust: Trust) -> str | None:
    client = None
    for name in names:
        address = _address(name)
        if address is None:
            break
        client = address
        if not trust.trusts(address):
            break
    return client


def _addressed(
    head: RequestHead, authority: str, port: str
) -> tuple[str | None, str | None, bytes | None]:
    """Return host, port and Host header of the client's request.

    A port that is reported by itself is the one of the host, which otherwise is the request's.
    """
    reported = is_authority(authority.encode("latin-1"))
    if not _PORT.fullmatch(port) or int(port) > 65535:
        port = ""
    if not reported and not port:
        return None, None, None
    whole = authority if reported else (head.first(b"host") or b"").decode("latin-1")
    host, separator, own = whole.rpartition(":")
    if not separator or own.endswith("]"):
        host, own = whole, ""
    if port:
        whole = f"{host}:{port}" if host else ""
    name = host if reported else None
    return name, port or own or None, whole.encode("latin-1") or None


def _prefix(text: str, default: str) -> str:
    try:
        return parse_prefix(text.rstrip("/")) if text else default
    except ValueError:
        return default


def _last(head: RequestHead, name: bytes) -> str:
    values = _values(head, name)
    return values[-1].rpartition(",")[2].strip(" \t") if values else ""


def _values(head: RequestHead, name: bytes) -> list[str]:
    return [value.decode("latin-1") for known, value in head.headers if known == name]


def _elements(text: str) -> list[str]:
    """Split at the commas outside of quotes, in linear time.

    Quotes are counted from the end, where the nearest proxy appended its element: a quote that a client
    left open must not include it.
    """
    pieces = text.split('"')
    for quoted in range(len(pieces) - 2, -1, -2):
        pieces[quoted] = pieces[quoted].replace(",", "\0")  # a byte that no header contains
    return [element.replace("\0", ",") for element in '"'.join(pieces).split(",")]


def _pairs(element: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in element.split(";"):
        match = _PAIR.fullmatch(part)
        if match is None or match[1].lower() in pairs:
            return {}
        pairs[match[1].lower()] = match[2] if match[2] is not None else match[3]
    return pairs


def _address(text: str) -> str | None:
    match = _NODE.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return str(unmapped(ipaddress.ip_address(match[1] or match[2] or match[3])))
    except ValueError:
        return None
