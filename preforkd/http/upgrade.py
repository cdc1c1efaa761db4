"""The opening handshake of a WebSocket: the server's side of RFC 6455, section 4.2.

The judge of heads has already checked what holds for every request (Host, version, framing). Here the fields of
the handshake are checked, strictly: section 9.1 demands that a malformed list of extensions is refused, and the
same is done with every other field.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import NoReturn

from preforkd.http.head import RequestError, RequestHead

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_PROTOCOL = re.compile(_TOKEN)
_PARAMETER = re.compile(rb"[ \t]*;[ \t]*(%b)(?:[ \t]*=[ \t]*(%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED))
_EXTENSION = re.compile(rb"(%b)((?:%b)*)[ \t]*(?:,|\Z)" % (_TOKEN, _PARAMETER.pattern))
_BLANK = re.compile(rb"[ \t,]*")
_ESCAPED = re.compile(rb"\\(.)")

Parameters = list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class WebSocketRequest:
    """What a client asks for: its key, the subprotocols and the extensions that it offers, in its order."""

    key: bytes
    subprotocols: tuple[str, ...] = ()
    extensions: tuple[tuple[str, Parameters], ...] = ()


def check(head: RequestHead) -> WebSocketRequest:
    """Return what the handshake in this head asks for; the head's Upgrade is ``websocket``.

    Raises RequestError: 426, which names the version that is supported, or 400.
    """
    if head.method != "GET":
        _refuse("the method of a WebSocket handshake is GET")
    if head.length:
        _refuse("a WebSocket handshake has no body")
    version = _only(head, b"sec-websocket-version")
    if version != b"13":
        raise RequestError(
            "426 Upgrade Required",
            "the supported version of the WebSocket protocol is 13",
            (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
        )
    key = _only(head, b"sec-websocket-key")
    if key is None or not _KEY.fullmatch(key):
        _refuse("Sec-WebSocket-Key is not the base64 form of 16 bytes")
    return WebSocketRequest(key, _subprotocols(head), _extensions(head))


def accept_headers(
    request: WebSocketRequest, subprotocol: str | None, extension: str
) -> list[tuple[bytes, bytes]]:
    """Return the headers of the answer 101. ``extension``: the one accepted, rendered; empty: none.

    Raises ValueError for a subprotocol that the client has not offered, section 4.2.2.
    """
    # The hash proves that the key was read; it protects nothing (section 10.8).
    digest = hashlib.sha1(request.key + _GUID, usedforsecurity=False).digest()
    headers = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", base64.b64encode(digest)),
    ]
    if subprotocol is not None:
        if subprotocol not in request.subprotocols:
            raise ValueError(f"the client has not offered the subprotocol {subprotocol!r}")
        headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode()))
    if extension:
        headers.append((b"Sec-WebSocket-Extensions", extension.encode()))
    return headers


def _refuse(reason: str) -> NoReturn:
    raise RequestError("400 Bad Request", reason)


def _only(head: RequestHead, name: bytes) -> bytes | None:
    """Return the value of a field that must not be repeated, section 11.3; None: there is none."""
    values = [value for known, value in head.headers if known == name]
    if len(values) > 1:
        _refuse(f"{name.decode()} is repeated")
    return values[0] if values else None


def _joined(head: RequestHead, name: bytes) -> bytes:
    # A field with a list may be repeated, RFC 9110, section 5.3.
    return b",".join(value for known, value in head.headers if known == name)


def _subprotocols(head: RequestHead) -> tuple[str, ...]:
    offered = []
    for part in _joined(head, b"sec-websocket-protocol").split(b","):
        name = part.strip(b" \t")
        if not name:
            continue  # RFC 9110, section 5.6.1.2: empty elements are ignored
        if not _PROTOCOL.fullmatch(name):
            _refuse("Sec-WebSocket-Protocol is malformed")
        offered.append(name.decode())
    if len(set(offered)) != len(offered):
        _refuse("Sec-WebSocket-Protocol names a protocol twice")
    return tuple(offered)


def _extensions(head: RequestHead) -> tuple[tuple[str, Parameters], ...]:
    text = _joined(head, b"sec-websocket-extensions")
    offered = []
    at = _skip(text, 0)
    while at < len(text):
        found = _EXTENSION.match(text, at)
        if found is None:
            _refuse("Sec-WebSocket-Extensions is malformed")
        parameters = [_parameter(one) for one in _PARAMETER.finditer(found[2])]
        offered.append((found[1].decode(), parameters))
        at = _skip(text, found.end())
    return tuple(offered)


def _skip(text: bytes, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank is not None else at


def _parameter(match: re.Match[bytes]) -> tuple[str, str | None]:
    value = match[2]
    if value is None:
        return match[1].decode(), None
    if value[:1] == b'"':
        value = _ESCAPED.sub(rb"\1", value[1:-1])
        if not _PROTOCOL.fullmatch(value):
            _refuse(
                "Sec-WebSocket-Extensions is malformed"
            )  # section 9.1: it is a token when unquoted
    return match[1].decode(), value.decode()
