"""The head of a request: request line and header fields, parsed strictly or refused. RFC 9110, RFC 9112.

A head that a proxy could understand differently is refused: that is how requests are smuggled. The grammar here
and in `preforkd.http.lines` has no leniency; the tests compare it with llhttp, the parser of Node.js.

Clients repeat most of their header lines and change some, so that parsed lines are cached one by one.
"""

import re

import msgspec

from preforkd.http.bounds import Bounds, Budget, RequestError
from preforkd.http.lines import (
    CODING,
    CONNECTION,
    EXPECT,
    HOST,
    KEPT,
    LENGTH,
    MAX_CACHED_SIZE,
    REQUEST_LINE,
    TOO_LARGE,
    UNDERSCORED,
    UPGRADE,
    Field,
    cached_field,
    check_request_line,
    parse_field,
    refuse,
    refuse_early,
)

_PROTECTED = frozenset(
    (b"content-length content-type transfer-encoding host connection expect upgrade trailer te "
     b"authorization proxy-authorization forwarded via remote-user "
     b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix x-real-ip")
.split()
)  # fmt: skip
"""Headers on which decisions rest: an imitation with an underscore is refused."""
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9a-z]+"
_UNKNOWN_CODINGS = re.compile(
    rb"(?:(?!chunked[ \t]*[,;])" + _TOKEN
    + rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"[ \t]*=[ \t]*(?:" + _TOKEN + rb"|\"(?:[^\"\\]|\\.)*\"))*"
    + rb"[ \t]*,[ \t]*)+chunked"
)  # fmt: skip
"""Codings of which the last is chunked, and no other one is; in small letters."""
_MAX_UNPARSED = 2048
"""Bytes of an unparsed request line that the access log shows."""
_NONE: list[bytes] = []

CHUNKED = -1
"""The length of a body with chunked framing."""


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """The parsed head of a request; header names are lower-case, in the order of the request."""

    method: str
    target: bytes
    version: str
    """1.0 or 1.1, which stands for later minor versions, too."""
    headers: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool
    length: int
    """Bytes of the body, or `CHUNKED`."""
    expects_continue: bool
    upgrade: bytes = b""
    """The protocol that the client proposes to change to, in small letters: ``websocket`` if it is one of
    several, else the first. Empty: none, or Connection does not list it."""
    dropped: int = 0
    """Headers that were dropped because of an underscore in their names."""

    def first(self, name: bytes) -> bytes | None:
        """Return the first value of a header; None: there is none."""
        return next((value for known, value in self.headers if known == name), None)


def unparsed_head(data: bytes) -> RequestHead:
    """Return a head for the access log of a refused request; an invalid request line is its target."""
    line = data[:_MAX_UNPARSED].partition(b"\r")[0].partition(b"\n")[0]
    match = REQUEST_LINE.fullmatch(line + b"\r\n")
    if match is None:
        return RequestHead("", line, "", (), False, 0, False)
    version = f"{match[3].decode()}.{match[4].decode()}"
    return RequestHead(match[1].decode(), match[2], version, (), False, 0, False)


class HeadParser:
    """A parser of complete heads."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def parse(self, data: bytes) -> RequestHead:
        """Parse a head, from its first byte to the empty line. Raises RequestError."""
        try:
            return self._parse(data)
        except RequestError:
            # The first invalid line decides, as if the head had arrived byte by byte.
            refuse_early(data, self._bounds)
            raise

    def _parse(self, data: bytes) -> RequestHead:
        line = REQUEST_LINE.match(data)
        if line is None:
            refuse("the request line is malformed")
        authority = check_request_line(line)
        fields, special = self._fields(data, line.end())
        version = "1.0" if line[4] == b"0" else "1.1"
        if len(hosts := special.get(HOST, _NONE)) != 1 and (hosts or version == "1.1"):
            refuse("exactly one Host header is required")
        dropped = 0
        if UNDERSCORED in special:
            fields = _drop_underscored(fields)
            dropped = len(special[UNDERSCORED])
        if authority:
            # RFC 9112, section 3.2.2: the authority of an absolute target replaces the Host header.
            fields = [(name, authority if name == b"host" else value) for name, value in fields]
        length = _length(special, version) if LENGTH in special or CODING in special else 0
        expects_continue = EXPECT in special and _expects(special[EXPECT], version)
        keep_alive, upgrade = _connection(special, version)
        return RequestHead(
            line[1].decode(),
            line[2],
            version,
            tuple(fields),
            keep_alive,
            length,
            expects_continue,
            upgrade,
            dropped,
        )

    def _fields(self, data: bytes, start: int) -> tuple[list[Field], dict[int, list[bytes]]]:
        """Return the fields from ``start`` on, and the values of those that the parser evaluates, by kind."""
        fields: list[Field] = []
        special: dict[int, list[bytes]] = {}
        for line in self._lines(data, start):
            kind, field = (cached_field if len(line) <= MAX_CACHED_SIZE else parse_field)(line)
            fields.append(field)
            if kind:
                special.setdefault(kind, []).append(field[1])
        return fields, special

    def _lines(self, data: bytes, start: int) -> list[bytes]:
        bounds = self._bounds
        if start > bounds.max_line:
            refuse("the request line is too long", "414 URI Too Long")
        if len(data) > bounds.max_header:
            refuse("the headers are too large", TOO_LARGE)
        if data[-4:] != b"\r\n\r\n":
            refuse("a header is malformed")
        lines = data[start:-4].split(b"\r\n") if start < len(data) - 2 else []
        if len(lines) > bounds.max_fields:
            refuse("there are too many headers", TOO_LARGE)
        if len(data) - start > bounds.max_field and max(map(len, lines)) > bounds.max_field:
            refuse("a header is too large", TOO_LARGE)
        return lines


def _drop_underscored(fields: list[Field]) -> list[Field]:
    # In an environ X_A and X-A are the same header: one that stands next to the other, or imitates
    # a protected one, is an attack; any other is dropped, as by nginx.
    proper = {name for name, _ in fields if b"_" not in name}
    for name, _ in fields:
        twin = name.replace(b"_", b"-")
        if b"_" in name and (twin in proper or twin in _PROTECTED):
            refuse("a header with an underscore imitates another")
    return [field for field in fields if b"_" not in field[0]]


def _connection(special: dict[int, list[bytes]], version: str) -> tuple[bool, bytes]:
    """Return whether the client keeps the connection, and the protocol that it proposes to change to."""
    keep_alive = version == "1.1" or KEPT in special
    if CONNECTION not in special:
        return keep_alive, b""
    options = _tokens(special[CONNECTION])
    upgrade = b""
    if UPGRADE in special and version == "1.1" and b"upgrade" in options:
        protocols = _tokens(special[UPGRADE])
        upgrade = b"websocket" if b"websocket" in protocols else protocols[0]
    return b"close" not in options and (keep_alive or b"keep-alive" in options), upgrade


def _tokens(values: list[bytes]) -> list[bytes]:
    return [token.strip(b" \t") for token in b",".join(values).lower().split(b",")]


def _length(special: dict[int, list[bytes]], version: str) -> int:
    """Return the length of the body, RFC 9112, section 6.3."""
    lengths, codings = special.get(LENGTH, _NONE), special.get(CODING, _NONE)
    if len(lengths) > 1 or (lengths and codings):
        refuse("the length of the body is ambiguous")
    if not codings:
        return int(lengths[0].lstrip(b"0") or b"0")
    if version == "1.0":
        refuse("Transfer-Encoding is not allowed in HTTP/1.0")
    value = b",".join(codings).lower()
    if value != b"chunked":
        if _UNKNOWN_CODINGS.fullmatch(value):
            refuse("the only supported transfer coding is chunked", "501 Not Implemented")
        refuse("the last transfer coding is not chunked")
    return CHUNKED


def _expects(expectations: list[bytes], version: str) -> bool:
    if len(expectations) > 1 or expectations[0].lower() != b"100-continue":
        refuse("the only supported expectation is 100-continue", "417 Expectation Failed")
    return version == "1.1"


__all__ = [
    "CHUNKED",
    "Bounds",
    "Budget",
    "HeadParser",
    "RequestError",
    "RequestHead",
    "refuse_early",
    "unparsed_head",
]
