"""The head of a request: its line and its fields, complete, strict, or refused. RFC 9110, RFC 9112.

Whatever a proxy in front of us could understand otherwise than we do is refused: that is how requests
are smuggled. Two judges must agree: a grammar without any leniency, here, and llhttp (httptools),
which takes the head apart.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import NoReturn

import httptools

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n)*\r\n")
_HOST = re.compile(
    rb"(?:(?P<name>[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*|\[(?P<v6>[0-9A-Fa-f:.]+)\])"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SAFE_TWICE = frozenset(
    (b"content-length content-type transfer-encoding host connection expect upgrade trailer te "
     b"authorization proxy-authorization forwarded via remote-user "
     b"x-forwarded-for x-forwarded-proto x-forwarded-host x-real-ip")
.split()
)  # fmt: skip
"""Headers that a name with an underscore must not imitate."""

_AFTERMATH = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade"))
"""Headers after which llhttp does not expect another head."""

CHUNKED = -1
"""The length of a body that comes in chunks."""


class RequestError(Exception):
    """The client's fault: the status to answer with, and why; the connection ends."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


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


@dataclass(frozen=True, slots=True)
class Head:
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


def _refuse(reason: str, status: str = "400 Bad Request") -> NoReturn:
    raise RequestError(status, reason)


def refuse_early(data: bytes, bounds: Bounds, line_judged: bool) -> bool:
    """Judge whether a head that has not arrived as a whole is worth waiting for.

    Returns whether its first line has been judged. Raises RequestError.
    """
    if not line_judged:
        line_judged = _judge_line(data, bounds)
    if len(data) > bounds.max_header:
        _refuse("the headers are too large", "431 Request Header Fields Too Large")
    return line_judged


def _judge_line(data: bytes, bounds: Bounds) -> bool:
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
        self._fields: list[tuple[bytes, bytes]] = []

    # --- called by llhttp ------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field."""
        self._fields.append((name.lower(), value.strip(b" \t")))

    # ---------------------------------------------------------------------------------------------

    def parse(self, data: bytes) -> Head:
        """Take a head apart, from its first byte to the empty line. Raises RequestError."""
        line = _LINE.match(data)
        if line is None:
            # As it is judged when it arrives in pieces: the answer is the same.
            _judge_line(data, self._bounds)
            _refuse("the request line is malformed")
        self._check_sizes(data, line.end())
        if _FIELDS.fullmatch(data, line.end()) is None:
            _refuse("a header is malformed")
        if line[3] != b"1" or line[4] > b"1":
            _refuse("speak HTTP/1.1", "505 HTTP Version Not Supported")
        self._take_apart(data, line[0])
        if self._url != line[2]:
            _refuse("the request line is malformed")
        return _judged(line[1].decode(), self._url, "1." + line[4].decode(), self._fields)

    def _check_sizes(self, data: bytes, line: int) -> None:
        bounds = self._bounds
        if line > bounds.max_line:
            _refuse("the request line is too long", "414 URI Too Long")
        status = "431 Request Header Fields Too Large"
        if len(data) > bounds.max_header:
            _refuse("the headers are too large", status)
        if data.count(b"\n", line) - 1 > bounds.max_fields:
            _refuse("there are too many headers", status)
        if len(data) - line > bounds.max_field:
            longest = max(map(len, data[line:].split(b"\r\n")))
            if longest > bounds.max_field:
                _refuse("a header is too large", status)

    def _take_apart(self, data: bytes, line: bytes) -> None:
        self._url = b""
        self._fields = []
        parser = self._parser or httptools.HttpRequestParser(self)
        self._parser = None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # it is answered as if it had not asked
        except httptools.HttpParserInvalidMethodError:
            named = line.partition(b" ")[0].isupper()
            _refuse(
                "there is no such method", "501 Not Implemented" if named else "400 Bad Request"
            )
        except httptools.HttpParserError as error:
            raise RequestError("400 Bad Request", "the request is malformed") from error
        if line.endswith(b"1.1\r\n") and _AFTERMATH.isdisjoint(name for name, _ in self._fields):
            self._parser = parser  # it is where it began


def _judged(method: str, target: bytes, version: str, fields: list[tuple[bytes, bytes]]) -> Head:
    hosts, lengths, codings, expectations, connection = [], [], [], [], b""
    under = False
    for name, value in fields:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection":
            connection += b"," + value.lower()
        elif name == b"expect":
            expectations.append(value)
        elif b"_" in name:
            under = True
    if under:
        fields = _without_imitations(fields)
    if len(hosts) != 1 and (hosts or version == "1.1"):
        _refuse("exactly one Host header is needed")
    if hosts and not _is_host(hosts[0]):
        _refuse("Host is malformed")
    fields = _check_target(method, target, fields)
    tokens = {token.strip(b" \t") for token in connection.split(b",")}
    return Head(
        method=method,
        target=target,
        version=version,
        headers=tuple(fields),
        keep_alive=b"close" not in tokens and (version == "1.1" or b"keep-alive" in tokens),
        length=_length(lengths, codings, version),
        expects_continue=_expects(expectations, version),
    )


def _without_imitations(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # To an application, X_A and X-A are the same header: one that came beside the other, or that
    # imitates one on which decisions rest, is an attack; any other is dropped, as by nginx.
    proper = {name for name, _ in fields if b"_" not in name}
    for name, _ in fields:
        twin = name.replace(b"_", b"-")
        if b"_" in name and (twin in proper or twin in _SAFE_TWICE):
            _refuse("a header imitates another by an underscore")
    return [field for field in fields if b"_" not in field[0]]


def _is_host(value: bytes) -> bool:
    match = _HOST.fullmatch(value)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    if match["v6"] is not None:
        try:
            ipaddress.IPv6Address(match["v6"].decode())
        except ValueError:
            return False
    return True


def _check_target(
    method: str, target: bytes, fields: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    if method == "CONNECT":
        _refuse("CONNECT is not supported", "501 Not Implemented")
    if b"#" in target or (b"%" in target and _PERCENT.search(target)):
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
    if not lengths:
        return 0
    # isdigit: bytes know no digits but 0 to 9.
    if not lengths[0].isdigit():
        _refuse("Content-Length is not a number")
    if len(lengths[0]) > 18:
        _refuse("the body is too large", "413 Content Too Large")
    return int(lengths[0])


def _expects(expectations: list[bytes], version: str) -> bool:
    if not expectations:
        return False
    if len(expectations) > 1 or expectations[0].lower() != b"100-continue":
        _refuse("the only expectation is 100-continue", "417 Expectation Failed")
    return version == "1.1"
