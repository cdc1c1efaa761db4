"""The client as a proxy reports it: forwarded headers, and the PROXY protocol.

RFC 7239; the de facto X-Forwarded-For and -Proto; HAProxy's proxy-protocol.txt, versions 1 and 2. They are
believed from trusted peers only: any client can send these bytes.
"""

import ipaddress
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from preforkd.config.peers import parse_peers
from preforkd.http.head import RequestHead

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_FORWARDING = re.compile(rb"forwarded|x-forwarded(-.*)?|x-real-ip")
_PAIR = re.compile(
    r'[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=(?:([!#$%&\'*+\-.^_`|~0-9A-Za-z:\[\]]+)|"([^"\\]*)")[ \t]*'
)
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[\w.-]+)?|([0-9.]+)(?::[\w.-]+)?|([0-9A-Fa-f:.]+)")
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|TCP[46] ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
_V1_MOST = 107
_V2_MOST = 16 + 2048


class ProxyHeaderError(Exception):
    """A trusted peer did not send a valid PROXY header."""


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
            ip = _plain(ipaddress.ip_address(address.partition("%")[0]))
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
        return str(_plain(ipaddress.ip_address(match[1] or match[2] or match[3])))
    except ValueError:
        return None


def _plain(address: _Address) -> _Address:
    """Return an IPv4 address for one that is mapped into IPv6."""
    return getattr(address, "ipv4_mapped", None) or address


class ProxyHeader:
    """A parser of a PROXY header that never consumes a byte behind it.

    `peek` gets the bytes that wait in the socket and returns how many to receive; `take` gets those.
    ``source``: address and port of the client; None: the connection is the proxy's own.
    """

    def __init__(self) -> None:
        self.done = False
        self.source: tuple[str, str] | None = None
        self._data = b""

    def peek(self, waiting: bytes) -> int:
        """Return how many of the waiting bytes belong to the header. Raises ProxyHeaderError."""
        data = self._data + waiting
        if len(data) < len(_SIGNATURE):
            if not (_SIGNATURE.startswith(data) or b"PROXY "[: len(data)] == data[:6]):
                raise ProxyHeaderError("no PROXY header")
            return len(waiting)
        if data.startswith(_SIGNATURE):
            if len(data) < 16:
                return len(waiting)
            whole = 16 + int.from_bytes(data[14:16])
            if whole > _V2_MOST:
                raise ProxyHeaderError("the PROXY header is too large")
        else:
            end = data.find(b"\n", 0, _V1_MOST)
            if not data.startswith(b"PROXY ") or (end < 0 and len(data) >= _V1_MOST):
                raise ProxyHeaderError("no PROXY header")
            whole = end + 1 if end >= 0 else len(data)
        return min(len(waiting), whole - len(self._data))

    def take(self, data: bytes) -> None:
        """Parse the bytes that `peek` counted. Raises ProxyHeaderError."""
        self._data += data
        whole = self._data
        if whole.startswith(_SIGNATURE):
            if len(whole) >= 16 and len(whole) == 16 + int.from_bytes(whole[14:16]):
                self._read_v2(whole)
        elif whole.startswith(b"PROXY ") and whole.endswith(b"\n"):
            self._read_v1(whole)

    def _read_v1(self, line: bytes) -> None:
        match = _V1.fullmatch(line)
        if match is None:
            raise ProxyHeaderError("the PROXY header is malformed")
        self.done = True
        if match[1] is not None:
            version = 4 if line.startswith(b"PROXY TCP4") else 6
            try:
                address = ipaddress.ip_address(match[1].decode())
                other = ipaddress.ip_address(match[2].decode())
            except ValueError:
                raise ProxyHeaderError("the PROXY header is malformed") from None
            if {address.version, other.version} != {version} or int(match[3]) > 65535:
                raise ProxyHeaderError("the PROXY header is malformed")
            self.source = str(_plain(address)), match[3].decode()

    def _read_v2(self, data: bytes) -> None:
        if data[12] >> 4 != 2 or data[12] & 15 > 1:
            raise ProxyHeaderError("the PROXY header has an unknown version or command")
        self.done = True
        if data[12] & 15 == 0:
            return  # LOCAL: the proxy's own health check
        family, body = data[13] >> 4, data[16:]
        size = {1: 4, 2: 16}.get(family)
        if size is None:
            return  # unspecified, or a Unix socket
        if len(body) < 2 * size + 4:
            raise ProxyHeaderError("the PROXY header is malformed")
        (port,) = struct.unpack_from("!H", body, 2 * size)
        self.source = str(_plain(ipaddress.ip_address(body[:size]))), str(port)
