"""The client as a proxy reports it by forwarded headers, and which peers are trusted to report it.

RFC 7239; the de facto X-Forwarded-For and -Proto. They are believed from trusted peers only: any client can
send them.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from preforkd.config.peers import parse_peers, unmapped
from preforkd.http.head import RequestHead

_FORWARDING = re.compile(rb"forwarded|x-forwarded(-.*)?|x-real-ip")
_PAIR = re.compile(
    r'[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=(?:([!#$%&\'*+\-.^_`|~0-9A-Za-z:\[\]]+)|"([^"\\]*)")[ \t]*'
)
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
    """The client as the proxy reported it; None: not reported."""

    address: str | None = None
    scheme: str | None = None


def without_forwarding(head: RequestHead) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers without those by which a client could pose as a proxy."""
    return tuple(field for field in head.headers if not _FORWARDING.fullmatch(field[0]))


def forwarded(head: RequestHead, style: str, trust: Trust) -> Origin:
    """Return what the trusted proxies reported, in the ``forwarded`` or the ``x-forwarded`` style.

    The addresses are read from the nearest proxy outwards; the first that is not trusted is the client.
    Malformed values count as not reported.
    """
    names: Iterable[str]
    if style == "forwarded":
        elements = _elements(",".join(_values(head, b"forwarded")))
        schemes = [_pairs(elements[-1]).get("proto", "")]
        names = (_pairs(element).get("for", "") for element in reversed(elements))
    else:
        schemes = ",".join(_values(head, b"x-forwarded-proto")).split(",")
        names = reversed(",".join(_values(head, b"x-forwarded-for")).split(","))
    scheme = schemes[-1].strip().lower()
    client = None
    for name in names:
        address = _address(name)
        if address is None:
            break
        client = address
        if not trust.trusts(address):
            break
    return Origin(client, scheme if scheme in {"http", "https"} else None)


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
