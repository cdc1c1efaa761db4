"""What an application may answer, well or badly; written once, called as WSGI and as ASGI."""

from http import HTTPStatus
from typing import NamedTuple


class Behaviour(NamedTuple):
    """Status, headers and parts of the body, as the application gives them; and what the client gets.

    ``body`` None: the server answers 500 instead. ``ends``: the connection does not stay open. ``known``: the
    length is known before the first part is sent. ``why``: the reason why ASGI may answer less.
    """

    code: int
    headers: tuple
    parts: tuple
    body: bytes | None = b"hello"
    ends: bool = False
    known: bool = True
    raises: bool = False
    why: str = ""


WHY = "send() raises on a wrong length: 500 if nothing was sent, else the answer is cut off at once"
HOP_BY_HOP = tuple(
    (name, "chunked")
    for name in (
        "Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Proxy-Authenticate",
    )
)  # fmt: skip
LENGTHS = ("x", "+5", "-1", "5,5", "", " 5", "\xb2")
VALUES = ("a\r\nY: b", "a\nb", "a\rb", "a\0b", "\x7f", "a\r\n b")
NAMES = ("X Y", "X:", "", "X\r\nY", "\xe4", "X\0")
ONE, TWO = (b"hello",), (b"he", b"llo")
BEHAVIOURS = {
    "whole": Behaviour(200, (), ONE),
    "parts": Behaviour(200, (), TWO, known=False),
    "parts-and-nothing": Behaviour(200, (), (b"", b"he", b"", b"llo", b""), known=False),
    "length": Behaviour(200, (("Content-Length", "5"),), TWO),
    "less": Behaviour(200, (("Content-Length", "9"),), TWO, ends=True, why=WHY),
    "more": Behaviour(200, (("Content-Length", "4"),), TWO, b"hell", ends=True, why=WHY),
    "more-at-once": Behaviour(200, (("Content-Length", "4"),), ONE, b"hell", ends=True, why=WHY),
    "empty": Behaviour(200, (), (b"",), b""),
    "no-content": Behaviour(204, (), ONE, b""),
    "no-content-in-parts": Behaviour(204, (), TWO, b""),
    "no-content-with-length": Behaviour(204, (("Content-Length", "5"),), ONE, b""),
    "not-modified": Behaviour(304, (("ETag", '"x"'),), (b"",), b""),
    "not-modified-with-length": Behaviour(304, (("Content-Length", "5"),), ONE, b""),
    "not-found": Behaviour(404, (), ONE),
    "unnamed-status": Behaviour(299, (), ONE),
    "hop-by-hop": Behaviour(200, HOP_BY_HOP, ONE),
    "hop-by-hop-in-parts": Behaviour(200, HOP_BY_HOP, TWO, known=False),
    "close": Behaviour(200, (("Connection", "close"),), ONE, ends=True),
    "close-among-others": Behaviour(200, (("connection", "x, Close"),), TWO, ends=True, known=False),
    "own-server": Behaviour(200, (("Server", "mine"),), ONE),
    "latin-1": Behaviour(200, (("X", "\xe4\t\xff"),), ONE),
    "two-lengths": Behaviour(200, (("Content-Length", "5"),) * 2, ONE, None),
    "two-lengths-that-differ": Behaviour(
        200, (("Content-Length", "5"), ("content-length", "6")), ONE, None
    ),
    **{f"length-{text!r}": Behaviour(200, (("Content-Length", text),), ONE, None) for text in LENGTHS},
    **{f"value-{text!r}": Behaviour(200, (("X", text),), ONE, None) for text in VALUES},
    **{f"name-{text!r}": Behaviour(200, ((text, "a"),), ONE, None) for text in NAMES},
    **{f"status-{code}": Behaviour(code, (), ONE, None) for code in (0, 99, 100, 101, 199, 600, 999, 1000)},
    "raises": Behaviour(200, (), (), None, raises=True),
    "raises-behind-a-part": Behaviour(200, (), ONE, ends=True, known=False, raises=True),
    "raises-behind-a-part-with-length": Behaviour(200, (("Content-Length", "9"),), ONE, ends=True, raises=True),
}  # fmt: skip


def _behaviour(path):
    return list(BEHAVIOURS.values())[int(path.removeprefix("/"))]


def behave_wsgi(environ, start_response):
    one = _behaviour(environ["PATH_INFO"])
    if one.raises and not one.parts:
        raise RuntimeError("intended")
    known = one.code in HTTPStatus._value2member_map_
    status = f"{one.code} {HTTPStatus(one.code).phrase}" if known else f"{one.code}"
    start_response(status, list(one.headers))
    return _parts(one) if one.raises or len(one.parts) > 1 else list(one.parts)


def _parts(one):
    yield from one.parts
    if one.raises:
        raise RuntimeError("intended")


async def behave_asgi(scope, _receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    one = _behaviour(scope["path"])
    if one.raises and not one.parts:
        raise RuntimeError("intended")
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in one.headers]
    await send({"type": "http.response.start", "status": one.code, "headers": fields})
    for number, part in enumerate(one.parts, 1):
        more = one.raises or number < len(one.parts)
        await send({"type": "http.response.body", "body": part, "more_body": more})
    if one.raises:
        raise RuntimeError("intended")
