"""Heads of ASGI answers: judged once, and rendered as the application has given them."""

import pytest

pytest.importorskip("uvicorn")

from preforkd.worker.asgi.cycle import ResponseHeads


def test_a_head_is_made_once():
    """The same status and headers give the same head; pairs that are lists do as well."""
    heads = ResponseHeads("preforkd")
    head = heads.head(200, [(b"Content-Length", b"3"), (b"X-A", b"b")])
    assert heads.head(200, iter([(b"Content-Length", b"3"), (b"X-A", b"b")])) is head
    assert heads.head(200, [[b"Content-Length", b"3"], [b"X-A", b"b"]]) is head
    assert heads.head(201, [(b"Content-Length", b"3"), (b"X-A", b"b")]) is not head
    assert head.text == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx-a: b\r\nserver: preforkd\r\n"
    assert (head.length, head.chunked, head.close, head.date) == (3, False, False, True)


def test_what_an_application_says_itself_is_not_added():
    """Its own Server and Date stand alone; its wish to close and its framing are heard."""
    head = ResponseHeads("preforkd").head(
        299, [(b"Server", b"s"), (b"date", b"d"), (b"Connection", b"X, Close")]
    )
    assert head.text == b"HTTP/1.1 299 \r\nserver: s\r\ndate: d\r\nconnection: X, Close\r\n"
    assert (head.close, head.date, head.length) == (True, False, None)
    assert ResponseHeads("").head(200, [(b"Transfer-Encoding", b"chunked")]).chunked
    assert ResponseHeads("").head(204, []).bodiless


@pytest.mark.parametrize(
    "pair", [(b"a b", b"c"), (b"a:", b"c"), (b"a", b"c\r\nd: e"), (b"a", b"c\0"), (b"a\n", b"c")]
)
def test_a_head_cannot_be_split(pair):
    """Names and values that would end a line, or are none, are refused, each time again."""
    heads = ResponseHeads("")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            heads.head(200, [pair])


def test_heads_are_not_kept_without_bound():
    """A thousand kinds of answers do not stay."""
    heads = ResponseHeads("")
    for number in range(1000):
        heads.head(200, [(b"x", b"%d" % number)])
    assert len(heads._cached) <= 256


def test_the_date_is_there():
    """It is a whole line, and stays for a second."""
    heads = ResponseHeads("")
    assert heads.date().startswith(b"date: ")
    assert heads.date().endswith(b" GMT\r\n")
