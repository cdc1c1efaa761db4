"""The head of a request: request line and header fields, parsed strictly or refused. RFC 9110, RFC 9112.

A head that a proxy could understand differently is refused: that is how requests are smuggled. Two parsers
must agree: the grammar here, without any leniency, and llhttp (httptools).

Clients repeat most of their header lines and change some, so that parsed lines are cached one by one.
"""

import ipaddress
import math
import re
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NoReturn

import httptools
import msgspec

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")
_AUTHORITY = re.compile(
    rb"(?:(?P<name>[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*|\[(?P<v6>[0-9A-Fa-f:.]+)\])"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HASH_SIGN, _PERCENT_SIGN, _UNDERSCORE = b"#%_"
# Integers: `b"#" in data` raises and drops a TypeError inside CPython, which costs as much as a regular
# expression; `35 in data` does not.
_PROTECTED = frozenset(
    (b"content-length content-type transfer-encoding host connection expect upgrade trailer te "
     b"authorization proxy-authorization forwarded via remote-user "
     b"x-forwarded-for x-forwarded-proto x-forwarded-host x-real-ip")
.split()
)  # fmt: skip
"""Headers on which decisions rest: an imitation with an underscore is refused."""


_PLAIN, _UNDERSCORED, _EXPECT, _HOST, _KEPT, _CONNECTION, _LENGTH, _CODING, _UPGRADE = range(9)
"""The kinds of fields that the parser evaluates; _PLAIN is for the application only."""
_KINDS = {
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"expect": _EXPECT,
    b"host": _HOST,
    b"transfer-encoding": _CODING,
    b"upgrade": _UPGRADE,
}
_ENDS_PARSER = frozenset((_CONNECTION, _LENGTH, _CODING, _UPGRADE))
"""Fields after which a parser of llhttp cannot be used for another head."""
_MAX_UNPARSED = 2048
"""Bytes of an unparsed request line that the access log shows."""
_NONE: list[bytes] = []
_Field = tuple[bytes, bytes]
_MAX_CACHED, _MAX_CACHED_SIZE = 1024, 256
"""Lines that are cached, and the bytes of the longest."""

CHUNKED = -1
"""The length of a body with chunked framing."""


class RequestError(Exception):
    """A request that is refused: the status to answer and the reason; the connection ends.

    ``headers``: names and values that the answer has besides those of every refusal.
    """

    def __init__(self, status: str, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


class Budget:
    """The bytes that the bodies of all requests of a worker may use, in memory and in files."""

    def __init__(self, memory: float = 64 << 20, files: float = math.inf) -> None:
        self._left = {"memory": memory, "files": files}
        self._lock = threading.Lock()

    def take(self, place: str, size: int) -> bool:
        """Reserve bytes in ``memory`` or ``files``; return False, and reserve none, if too few are left."""
        with self._lock:
            if size > self._left[place]:
                return False
            self._left[place] -= size
            return True

    def give_back(self, place: str, size: int) -> None:
        """Release reserved bytes; may be called in any thread."""
        with self._lock:
            self._left[place] += size


@dataclass(frozen=True, slots=True)
class Bounds:
    """The upper bounds of a request, in bytes except the number of fields."""

    max_line: int = 8 << 10
    max_field: int = 16 << 10
    max_header: int = 32 << 10
    max_fields: int = 100
    max_body: int = 1 << 30
    spool: int = 256 << 10
    """A body above this is spooled to a file."""
    budget: Budget = field(default_factory=Budget)
    """Shared by all listeners of a worker."""


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """The parsed head of a request; header names are lower-case, in the order of the request."""

    method: str
    target: bytes
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool
    length: int
    """Bytes of the body, or `CHUNKED`."""
    expects_continue: bool

    def first(self, name: bytes) -> bytes | None:
        """Return the first value of a header; None: there is none."""
        return next((value for known, value in self.headers if known == name), None)


def unparsed_head(data: bytes) -> RequestHead:
    """Return a head for the access log of a refused request; an invalid request line is its target."""
    line = data[:_MAX_UNPARSED].partition(b"\r")[0].partition(b"\n")[0]
    match = _LINE.fullmatch(line + b"\r\n")
    if match is None:
        return RequestHead("", line, "", (), False, 0, False)
    version = f"{match[3].decode()}.{match[4].decode()}"
    return RequestHead(match[1].decode(), match[2], version, (), False, 0, False)


def _refuse(reason: str, status: str = "400 Bad Request") -> NoReturn:
    raise RequestError(status, reason)


def refuse_early(data: bytes, bounds: Bounds, line_checked: bool) -> bool:
    """Refuse an incomplete head that cannot become valid.

    Returns whether its request line is complete and checked. Raises RequestError.
    """
    if not line_checked:
        line_checked = _check_request_line(data, bounds)
    if len(data) > bounds.max_header:
        _refuse("the headers are too large", "431 Request Header Fields Too Large")
    return line_checked


def _check_request_line(data: bytes, bounds: Bounds) -> bool:
    end = data.find(b"\n", 0, bounds.max_line + 1)
    if end < 0:
        if not b"!" <= data[:1] <= b"~":
            _refuse("not an HTTP request")
        if len(data) > bounds.max_line:
            _refuse("the request line is too long", "414 URI Too Long")
        return False
    if _LINE.fullmatch(data, 0, end + 1) is None:
        _refuse("the request line is malformed")
    return True


class HeadParser:
    """A parser of complete heads; reusable, for one thread."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._parser: httptools.HttpRequestParser | None = None
        self._url = b""

    def on_url(self, url: bytes) -> None:
        """Take a part of the target; called by llhttp."""
        self._url += url

    def parse(self, data: bytes) -> RequestHead:
        """Parse a head, from its first byte to the empty line. Raises RequestError."""
        line = _LINE.match(data)
        if line is None:
            # The same answer as if it had arrived in pieces.
            _check_request_line(data, self._bounds)
            _refuse("the request line is malformed")
        end = line.end()
        fields, special = self._fields(data, end)
        if line[3] != b"1" or line[4] > b"1":
            _refuse("the supported versions are 1.0 and 1.1", "505 HTTP Version Not Supported")
        reusable = line[4] == b"1" and _ENDS_PARSER.isdisjoint(special)
        self._check_with_llhttp(data, reusable=reusable)
        if self._url != line[2]:
            _refuse("the request line is malformed")
        return _build_head(line[1].decode(), self._url, "1." + line[4].decode(), fields, special)

    def _fields(self, data: bytes, start: int) -> tuple[list[_Field], dict[int, list[bytes]]]:
        """Return the fields from ``start`` on, and the values of those that the parser evaluates, by kind."""
        lines = self._lines(data, start)
        fields: list[_Field] = []
        special: dict[int, list[bytes]] = {}
        for line in lines:
            kind, field = _cached_field(line) if len(line) <= _MAX_CACHED_SIZE else _field(line)
            fields.append(field)
            if kind:
                special.setdefault(kind, []).append(field[1])
        return fields, special

    def _lines(self, data: bytes, start: int) -> list[bytes]:
        bounds = self._bounds
        if start > bounds.max_line:
            _refuse("the request line is too long", "414 URI Too Long")
        status = "431 Request Header Fields Too Large"
        if len(data) > bounds.max_header:
            _refuse("the headers are too large", status)
        if data[-4:] != b"\r\n\r\n":
            _refuse("a header is malformed")
        lines = data[start:-4].split(b"\r\n") if start < len(data) - 2 else []
        if len(lines) > bounds.max_fields:
            _refuse("there are too many headers", status)
        if len(data) - start > bounds.max_field and max(map(len, lines)) > bounds.max_field:
            _refuse("a header is too large", status)
        return lines

    def _check_with_llhttp(self, data: bytes, *, reusable: bool) -> None:
        # ``reusable``: the parser can be used for the next head.
        self._url = b""
        parser = self._parser or httptools.HttpRequestParser(self)
        self._parser = None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # the upgrade is ignored, RFC 9110, section 7.8
        except httptools.HttpParserInvalidMethodError:
            named = data.partition(b" ")[0].isupper()
            _refuse("unknown method", "501 Not Implemented" if named else "400 Bad Request")
        except httptools.HttpParserError as error:
            raise RequestError("400 Bad Request", "the request is malformed") from error
        if reusable:
            self._parser = parser


def _field(line: bytes) -> tuple[int, _Field]:
    match = _FIELD.fullmatch(line)
    if match is None:
        _refuse("a header is malformed")
    name = match[1].lower()
    value = match[2].strip(b" \t")
    kind = _KINDS.get(name, _PLAIN)
    if _UNDERSCORE in name:
        kind = _UNDERSCORED
    if kind == _CONNECTION and value.lower() == b"keep-alive":
        kind = _KEPT
    return kind, (name, value)


_cached_field = lru_cache(_MAX_CACHED)(_field)


def _build_head(
    method: str,
    target: bytes,
    version: str,
    fields: list[_Field],
    special: dict[int, list[bytes]],
) -> RequestHead:
    if _UNDERSCORED in special:
        fields = _drop_underscored(fields)
    hosts = special.get(_HOST, _NONE)
    if len(hosts) != 1 and (hosts or version == "1.1"):
        _refuse("exactly one Host header is required")
    if hosts and not (_is_host_cached if len(hosts[0]) <= _MAX_CACHED_SIZE else _is_host)(hosts[0]):
        _refuse("Host is malformed")
    fields = _check_target(method, target, fields)
    keep_alive = version == "1.1" or _KEPT in special
    if _CONNECTION in special:
        connection = b",".join(special[_CONNECTION]).lower()
        tokens = {token.strip(b" \t") for token in connection.split(b",")}
        keep_alive = b"close" not in tokens and (keep_alive or b"keep-alive" in tokens)
    lengths, codings = special.get(_LENGTH, _NONE), special.get(_CODING, _NONE)
    return RequestHead(
        method=method,
        target=target,
        version=version,
        headers=tuple(fields),
        keep_alive=keep_alive,
        length=_length(lengths, codings, version) if lengths or codings else 0,
        expects_continue=_EXPECT in special and _expects(special[_EXPECT], version),
    )


def _drop_underscored(fields: list[_Field]) -> list[_Field]:
    # In an environ X_A and X-A are the same header: one that stands next to the other, or imitates
    # a protected one, is an attack; any other is dropped, as by nginx.
    proper = {name for name, _ in fields if b"_" not in name}
    for name, _ in fields:
        twin = name.replace(b"_", b"-")
        if b"_" in name and (twin in proper or twin in _PROTECTED):
            _refuse("a header with an underscore imitates another")
    return [field for field in fields if b"_" not in field[0]]


def _is_host(value: bytes) -> bool:
    match = _AUTHORITY.fullmatch(value)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    if match["v6"] is not None:
        try:
            ipaddress.IPv6Address(match["v6"].decode())
        except ValueError:
            return False
    return True


_is_host_cached = lru_cache(_MAX_CACHED)(_is_host)


def _check_target(method: str, target: bytes, fields: list[_Field]) -> list[_Field]:
    if method == "CONNECT":
        _refuse("CONNECT is not supported", "501 Not Implemented")
    if _HASH_SIGN in target:
        _refuse("the target is malformed")
    if _PERCENT_SIGN in target:
        if _PERCENT.search(target):
            _refuse("the target is malformed")
        if b"%00" in target:
            _refuse("the target contains a NUL")
    if target.startswith(b"/"):
        return fields
    if target == b"*":
        if method != "OPTIONS":
            _refuse("the target * is allowed for OPTIONS only")
        return fields
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        _refuse("the target is neither a path nor a URL")
    # RFC 9112, section 3.2.2: the authority of an absolute target replaces the Host header.
    authority = re.split(rb"[/?]", rest, maxsplit=1)[0]
    if not authority or not _is_host(authority):
        _refuse("the target's authority is malformed")
    return [(name, authority if name == b"host" else value) for name, value in fields]


def _length(lengths: list[bytes], codings: list[bytes], version: str) -> int:
    if len(lengths) > 1 or (lengths and codings):
        _refuse("the length of the body is ambiguous")
    if codings:
        if version == "1.0":
            _refuse("Transfer-Encoding is not allowed in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            _refuse("the only supported transfer coding is chunked")
        return CHUNKED
    # bytes.isdigit() accepts 0 to 9 only.
    if not lengths[0].isdigit():
        _refuse("Content-Length is not a number")
    if len(lengths[0]) > 18:
        _refuse("the body is too large", "413 Content Too Large")
    return int(lengths[0])


def _expects(expectations: list[bytes], version: str) -> bool:
    if len(expectations) > 1 or expectations[0].lower() != b"100-continue":
        _refuse("the only supported expectation is 100-continue", "417 Expectation Failed")
    return version == "1.1"
