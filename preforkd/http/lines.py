"""The lines of a request's head, each by itself: the request line and the header fields. RFC 9110, RFC 9112.

A line is valid or refused by itself; what several lines mean together is evaluated by `preforkd.http.head`
when the head is complete. So the first invalid line decides the answer, whether the head arrives at once or
byte by byte.
"""

import ipaddress
import re
from functools import lru_cache
from typing import NoReturn

from preforkd.http.bounds import Bounds, RequestError

REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n"
)
METHODS = frozenset(
    (b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "
     b"MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT "
     b"QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL "
     b"M-SEARCH NOTIFY PURGE SOURCE SUBSCRIBE UNSUBSCRIBE").split()
)  # fmt: skip
"""The HTTP Method Registry of IANA without PRI, which is none, and methods of UPnP, Icecast and caches."""
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")
_AUTHORITY = re.compile(
    rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+|\[(?:(?P<v6>[0-9A-Fa-f:.]+)"
    rb"|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\])"
    rb"(?::(?P<port>[0-9]{0,5}))?"
)
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HASH_SIGN, _PERCENT_SIGN, _UNDERSCORE = b"#%_"
# Integers: `b"#" in data` raises and drops a TypeError inside CPython, which costs as much as a regular
# expression; `35 in data` does not.
_MAX_DIGITS = 18
"""Digits of the largest Content-Length that is a number of 64 bits in any case."""

PLAIN, UNDERSCORED, EXPECT, HOST, KEPT, CONNECTION, LENGTH, CODING, UPGRADE = range(9)
"""The kinds of fields that the server evaluates; PLAIN is for the application only."""
_KINDS = {
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"expect": EXPECT,
    b"host": HOST,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
}
MAX_CACHED, MAX_CACHED_SIZE = 1024, 256
"""Lines that are cached, and the bytes of the longest."""

TOO_LARGE = "431 Request Header Fields Too Large"

Field = tuple[bytes, bytes]


def refuse(reason: str, status: str = "400 Bad Request") -> NoReturn:
    """Raise the error of a refused request."""
    raise RequestError(status, reason)


def refuse_early(data: bytes, bounds: Bounds, checked: int = 0, searched: int = 0) -> int:
    """Refuse a head that cannot become valid, by its first invalid line.

    ``checked``: what the last call returned for a shorter beginning of this head. ``searched``: how many bytes
    had arrived then, or fewer; so that all calls together take linear time. Returns the offset behind the last
    complete line. Raises RequestError.
    """
    if not checked:
        checked = _check_request_line(data, bounds, searched)
    fields = data.count(b"\n", 0, checked) - 1
    while checked:
        end = _line_end(data, bounds, checked, searched)
        if not end or data[checked:end] == b"\r\n":
            break
        fields += 1
        if fields > bounds.max_fields:
            refuse("there are too many headers", TOO_LARGE)
        if data[end - 2 : end] != b"\r\n":
            refuse("a header is malformed")
        parse_field(data[checked : end - 2])
        checked = end
    return checked


def _line_end(data: bytes, bounds: Bounds, start: int, searched: int) -> int:
    """Return the offset behind the field line that begins at ``start``; 0: it is incomplete."""
    longest = start + bounds.max_field + 2
    most = min(longest, bounds.max_header)
    end = data.find(b"\n", max(start, searched), most) + 1
    if not end and len(data) >= most:
        refuse(
            "a header is too large" if most == longest else "the headers are too large", TOO_LARGE
        )
    return end


def _check_request_line(data: bytes, bounds: Bounds, searched: int) -> int:
    """Return the offset behind a valid request line; 0: it is incomplete."""
    if not b"!" <= data[:1] <= b"~":
        refuse("not an HTTP request")
    end = data.find(b"\n", searched, bounds.max_line) + 1
    if not end:
        if len(data) >= bounds.max_line:
            refuse("the request line is too long", "414 URI Too Long")
        return 0
    line = REQUEST_LINE.fullmatch(data, 0, end)
    if line is None:
        refuse("the request line is malformed")
    check_request_line(line)
    return end


def check_request_line(line: re.Match[bytes]) -> bytes:
    """Return the authority of the target, if it is a URL; empty: it has none. Raises RequestError.

    Methods are in capital letters, RFC 9110, section 9.1. A later minor version is served, section 2.5.
    """
    if line[3] != b"1":
        refuse("the supported versions are 1.0 and 1.1", "505 HTTP Version Not Supported")
    method = line[1]
    authority = _check_target(method, line[2])
    if method not in METHODS:
        refuse("unknown method", "501 Not Implemented" if method.isupper() else "400 Bad Request")
    return authority


def _check_target(method: bytes, target: bytes) -> bytes:
    """Return the authority of a target that is a URL; empty: it has none. Raises RequestError."""
    if method == b"CONNECT":
        refuse("CONNECT is not supported", "501 Not Implemented")
    if _HASH_SIGN in target:
        refuse("the target is malformed")
    if _PERCENT_SIGN in target:
        if _PERCENT.search(target):
            refuse("the target is malformed")
        if b"%00" in target:
            refuse("the target contains a NUL")
    if target.startswith(b"/"):
        return b""
    if target == b"*":
        if method != b"OPTIONS":
            refuse("the target * is allowed for OPTIONS only")
        return b""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        refuse("the target is neither a path nor a URL")
    authority = re.split(rb"[/?]", rest, maxsplit=1)[0]
    if not is_authority(authority):
        refuse("the target's authority is malformed")
    return authority


def is_authority(value: bytes) -> bool:
    """Return whether this is a host with or without port, RFC 3986, section 3.2, without user information.

    An empty host is none, and an address has no zone, which has a meaning on one machine only.
    """
    match = _AUTHORITY.fullmatch(value)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    if match["v6"] is not None:
        try:
            ipaddress.IPv6Address(match["v6"].decode())
        except ValueError:
            return False
    return True


def parse_field(line: bytes) -> tuple[int, Field]:
    """Return the kind of a field, and its lower-case name and its value. Raises RequestError."""
    match = _FIELD.fullmatch(line)
    if match is None:
        refuse("a header is malformed")
    name = match[1].lower()
    value = match[2].strip(b" \t")
    kind = _KINDS.get(name, PLAIN)
    if _UNDERSCORE in name:
        kind = UNDERSCORED
    elif kind == CONNECTION and value.lower() == b"keep-alive":
        kind = KEPT
    elif kind == HOST and not is_authority(value):
        refuse("Host is malformed")
    elif kind == LENGTH:
        _check_length(value)
    return kind, (name, value)


def _check_length(value: bytes) -> None:
    # bytes.isdigit() accepts 0 to 9 only.
    if not value.isdigit():
        refuse("Content-Length is not a number")
    if len(value.lstrip(b"0")) > _MAX_DIGITS:
        refuse("the body is too large", "413 Content Too Large")


cached_field = lru_cache(MAX_CACHED)(parse_field)
"""The same for a line of at most `MAX_CACHED_SIZE` bytes, from a cache."""
