"""The head of a request: its line and its fields, complete, strict, or refused. RFC 9110, RFC 9112.

Whatever a proxy in front of us could understand otherwise than we do is refused: that is how requests
are smuggled. Two judges must agree: a grammar without any leniency, here, and llhttp (httptools).

Clients mostly send the same headers again, beside some that are new each time: what a line says is
remembered, line by line.
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
# Whether bytes contain a byte is asked by its number: asked by bytes of one, they first raise and
# forget a TypeError, which costs as much as a regular expression.
_PROTECTED = frozenset(
    (b"content-length content-type transfer-encoding host connection expect upgrade trailer te "
     b"authorization proxy-authorization forwarded via remote-user "
     b"x-forwarded-for x-forwarded-proto x-forwarded-host x-real-ip")
.split()
)  # fmt: skip
"""Headers that a name with an underscore must not imitate."""


_PLAIN, _UNDERSCORED, _EXPECT, _HOST, _KEPT, _CONNECTION, _LENGTH, _CODING, _UPGRADE = range(9)
"""What a field is about, beside what it says to the application."""
_KINDS = {
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"expect": _EXPECT,
    b"host": _HOST,
    b"transfer-encoding": _CODING,
    b"upgrade": _UPGRADE,
}
_ENDS_PARSER = frozenset((_CONNECTION, _LENGTH, _CODING, _UPGRADE))
"""After these, llhttp does not expect another head."""
_MAX_UNPARSED = 2048
"""Bytes of a line that nobody has judged."""
_NONE: list[bytes] = []
_Field = tuple[bytes, bytes]
_MAX_CACHED, _MAX_CACHED_SIZE = 1024, 256
"""Lines that are remembered, and bytes of the longest."""

CHUNKED = -1
"""The length of a body that comes in chunks."""


class RequestError(Exception):
    """The client's fault: the status to answer with, and why; the connection ends."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Budget:
    """Bytes that the bodies of all requests of a worker may still take, in memory and in files."""

    def __init__(self, memory: float = 64 << 20, files: float = math.inf) -> None:
        self._left = {"memory": memory, "files": files}
        self._lock = threading.Lock()

    def take(self, place: str, size: int) -> bool:
        """Take so many bytes of a place; False, and nothing is taken, if there are not so many."""
        with self._lock:
            if size > self._left[place]:
                return False
            self._left[place] -= size
            return True

    def give_back(self, place: str, size: int) -> None:
        """Let others have what was taken; called by whichever thread closes a body."""
        with self._lock:
            self._left[place] += size


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request may be at the most; all in bytes but the number of headers."""

    max_line: int = 8 << 10
    max_field: int = 16 << 10
    max_header: int = 32 << 10
    max_fields: int = 100
    max_body: int = 1 << 30
    spool: int = 256 << 10
    """A body above this is kept in a file."""
    budget: Budget = field(default_factory=Budget)
    """Shared by all listeners of a worker."""


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """One request's head; header names are lower-case, in the order in which they came."""

    method: str
    target: bytes
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool
    length: int
    """Bytes of the body; `CHUNKED`."""
    expects_continue: bool

    def first(self, name: bytes) -> bytes | None:
        """Return the first value of a header; None when there is none."""
        return next((value for known, value in self.headers if known == name), None)


def unparsed_head(data: bytes) -> RequestHead:
    """Return what a log can say of a request that was not taken: its line, as target if it is none."""
    line = data[:_MAX_UNPARSED].partition(b"\r")[0].partition(b"\n")[0]
    match = _LINE.fullmatch(line + b"\r\n")
    if match is None:
        return RequestHead("", line, "", (), False, 0, False)
    version = f"{match[3].decode()}.{match[4].decode()}"
    return RequestHead(match[1].decode(), match[2], version, (), False, 0, False)


def _refuse(reason: str, status: str = "400 Bad Request") -> NoReturn:
    raise RequestError(status, reason)


def refuse_early(data: bytes, bounds: Bounds, line_checked: bool) -> bool:
    """Judge whether a head that has not arrived as a whole is worth waiting for.

    Returns whether its first line has been judged. Raises RequestError.
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
            _refuse("this is no HTTP request")
        if len(data) > bounds.max_line:
            _refuse("the request line is too long", "414 URI Too Long")
        return False
    if _LINE.fullmatch(data, 0, end + 1) is None:
        _refuse("the request line is malformed")
    return True


class HeadParser:
    """Takes complete heads apart; one serves any number of them, one after the other."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._parser: httptools.HttpRequestParser | None = None
        self._url = b""

    def on_url(self, url: bytes) -> None:
        """Take a part of the target; called by llhttp."""
        self._url += url

    def parse(self, data: bytes) -> RequestHead:
        """Take a head apart, from its first byte to the empty line. Raises RequestError."""
        line = _LINE.match(data)
        if line is None:
            # As it is judged when it arrives in pieces: the answer is the same.
            _check_request_line(data, self._bounds)
            _refuse("the request line is malformed")
        end = line.end()
        fields, special = self._fields(data, end)
        if line[3] != b"1" or line[4] > b"1":
            _refuse("speak HTTP/1.1", "505 HTTP Version Not Supported")
        reusable = line[4] == b"1" and _ENDS_PARSER.isdisjoint(special)
        self._check_with_llhttp(data, reusable=reusable)
        if self._url != line[2]:
            _refuse("the request line is malformed")
        return _build_head(line[1].decode(), self._url, "1." + line[4].decode(), fields, special)

    def _fields(self, data: bytes, start: int) -> tuple[list[_Field], dict[int, list[bytes]]]:
        """Return names and values from there on, and those that are not only for the application, by kind."""
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
        # ``reusable``: afterwards, llhttp is where it began.
        self._url = b""
        parser = self._parser or httptools.HttpRequestParser(self)
        self._parser = None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # it is answered as if it had not asked
        except httptools.HttpParserInvalidMethodError:
            named = data.partition(b" ")[0].isupper()
            _refuse(
                "there is no such method", "501 Not Implemented" if named else "400 Bad Request"
            )
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
        _refuse("exactly one Host header is needed")
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
    # To an application, X_A and X-A are the same header: one that came beside the other, or that
    # imitates one on which decisions rest, is an attack; any other is dropped, as by nginx.
    proper = {name for name, _ in fields if b"_" not in name}
    for name, _ in fields:
        twin = name.replace(b"_", b"-")
        if b"_" in name and (twin in proper or twin in _PROTECTED):
            _refuse("a header imitates another by an underscore")
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
            _refuse("the target * is for OPTIONS")
        return fields
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        _refuse("the target is neither a path nor a URL")
    # RFC 9112, 3.2.2: the authority of an absolute target replaces the Host header.
    authority = re.split(rb"[/?]", rest, maxsplit=1)[0]
    if not authority or not _is_host(authority):
        _refuse("the target's authority is malformed")
    return [(name, authority if name == b"host" else value) for name, value in fields]


def _length(lengths: list[bytes], codings: list[bytes], version: str) -> int:
    if len(lengths) > 1 or (lengths and codings):
        _refuse("the length of the body is ambiguous")
    if codings:
        if version == "1.0":
            _refuse("HTTP/1.0 has no transfer codings")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            _refuse("the only transfer coding is chunked")
        return CHUNKED
    # isdigit: bytes know no digits but 0 to 9.
    if not lengths[0].isdigit():
        _refuse("Content-Length is not a number")
    if len(lengths[0]) > 18:
        _refuse("the body is too large", "413 Content Too Large")
    return int(lengths[0])


def _expects(expectations: list[bytes], version: str) -> bool:
    if len(expectations) > 1 or expectations[0].lower() != b"100-continue":
        _refuse("the only expectation is 100-continue", "417 Expectation Failed")
    return version == "1.1"
