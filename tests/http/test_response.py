"""Responses: framed so that their end is known."""

from types import SimpleNamespace

import pytest

from preforkd.http.response import Response, plain_error


def answer(*parts, status="200 OK", headers=(), whole=False, **how):
    """Return what is sent, and the response."""
    sent = []
    sink = SimpleNamespace(send=sent.append, send_last=sent.append)
    options = {"method": "GET", "version": "1.1", "keep": True, **how}
    response = Response(sink, **options)
    response.start(status, list(headers))
    for part in parts:
        response.write(part, whole=whole)
    response.complete = response.finish()
    data = b"".join(sent)
    head, _, body = data.partition(b"\r\n\r\n")
    response.pieces = len(sent)
    return head.decode(), body, response


def test_the_whole_body_gets_a_length_in_one_piece():
    """Head and body are sent together."""
    head, body, response = answer(b"abc", whole=True)
    assert "Content-Length: 3" in head
    assert body == b"abc"
    assert response.pieces == 1
    assert response.keep


def test_a_body_of_unknown_length_is_chunked():
    """For HTTP/1.1; for HTTP/1.0 the connection's end is the body's."""
    head, body, response = answer(b"abc", b"", b"de")
    assert "Transfer-Encoding: chunked" in head
    assert body == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert response.keep
    head, body, response = answer(b"abc", b"de", version="1.0")
    assert "Connection: close" in head
    assert body == b"abcde"
    assert not response.keep


def test_no_body_has_length_zero():
    """Except where there cannot be one."""
    assert "Content-Length: 0" in answer()[0]
    for status in ("204 No Content", "304 Not Modified"):
        head, body, _ = answer(b"ignored", status=status, whole=True)
        assert "Content-Length" not in head
        assert "Transfer-Encoding" not in head
        assert body == b""


def test_head_has_the_headers_of_get_and_no_body():
    """The length is the application's, or that of the whole."""
    assert answer(b"abc", method="HEAD", whole=True)[:2][1] == b""
    assert "Content-Length: 3" in answer(b"abc", method="HEAD", whole=True)[0]
    head, body, response = answer(method="HEAD", headers=[("Content-Length", "7")])
    assert "Content-Length: 7" in head
    assert body == b""
    assert response.keep
    assert answer(b"a", b"b", method="HEAD")[1] == b""


def test_more_or_less_than_was_promised():
    """Too much is cut, too little ends the connection: the client must see that it is cut."""
    _, body, response = answer(b"abcdef", headers=[("Content-Length", "3")])
    assert body == b"abc"
    assert not response.keep
    _, body, response = answer(b"ab", headers=[("Content-Length", "3")])
    assert not response.complete
    assert not response.keep


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX: y", []),
        ("OK", []),
        ("600 x", []),
        ("200 OK", [("X\r\nY", "z")]),
        ("200 OK", [("X", "a\r\nSet-Cookie: b")]),
        ("200 OK", [("X Y", "z")]),
        ("200 OK", [("Content-Length", "x")]),
    ],
)
def test_no_header_is_split(status, headers):
    """What an application passes on from a client cannot become another header."""
    with pytest.raises(ValueError, match=r"not a|invalid literal"):
        answer(status=status, headers=headers)


def test_the_connection_is_ours():
    """Hop-by-hop headers of the application are not sent; its wish to close is heard."""
    head, _, response = answer(
        b"x", headers=[("Connection", "close"), ("Transfer-Encoding", "gzip")], whole=True
    )
    assert head.count("Connection: close") == 1
    assert "gzip" not in head
    assert not response.keep


def test_date_and_server_are_added_unless_they_are_there():
    """One Date, one Server."""
    head = answer(headers=[("Date", "d"), ("Server", "s")])[0]
    assert head.count("Date:") == head.count("Server:") == 1
    head = answer()[0]
    assert head.count("Date:") == head.count("Server: preforkd") == 1


def test_an_error_is_a_whole_answer():
    """It has a length and closes."""
    head, _, body = plain_error("400 Bad Request", "why").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Connection: close" in head


def test_only_bytes_are_a_body():
    """Text is refused before anything was sent."""
    with pytest.raises(TypeError, match="must be bytes, not str"):
        answer("text", whole=True)
