"""Requests: complete or refused."""

import contextlib

import pytest
from hypothesis import given, settings, strategies as st

from preforkd.http.request import Bounds, RequestError, RequestParser

BOUNDS = Bounds(max_header=1024, max_body=1000, spool=100)


def parse(*pieces, bounds=BOUNDS):
    """Return the requests that are complete after these pieces."""
    parser = RequestParser(bounds)
    for piece in pieces:
        parser.feed(piece)
    return list(parser.ready)


def test_a_request_in_any_pieces_is_the_same():
    """Byte by byte or at once; method, target, headers in order and lower case, body."""
    data = b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-Y: 1\r\nContent-Length: 3\r\n\r\nabc"
    for pieces in ([data], [data[:20], data[20:]], [data[i : i + 1] for i in range(len(data))]):
        (request,) = parse(*pieces)
        assert (request.method, request.target, request.version) == ("POST", b"/a?b", "1.1")
        assert request.headers == [(b"host", b"h"), (b"x-y", b"1"), (b"content-length", b"3")]
        assert request.body.read() == b"abc"
        assert request.keep_alive


def test_chunked_bodies_are_put_together():
    """And large ones wait in a file."""
    (request,) = parse(
        b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n",
        b"80\r\n" + b"x" * 128 + b"\r\n0\r\n\r\n",
    )
    assert request.body.read() == b"hello" + b"x" * 128
    assert request.body_length == 133
    assert request.body.fileno() > 2
    request.body.close()


def test_pipelined_requests_are_all_there():
    """In their order."""
    requests = parse(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert [request.target for request in requests] == [b"/1", b"/2"]


def test_who_keeps_the_connection():
    """HTTP/1.1 unless closed, HTTP/1.0 when asked."""
    for text, keep in (
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ):
        assert parse(text)[0].keep_alive is keep


def test_a_header_with_an_underscore_is_not_passed_on():
    """To an application it would be the same as one with a hyphen, which a proxy may have set."""
    (request,) = parse(b"GET / HTTP/1.1\r\nHost: h\r\nX_Real_IP: evil\r\nX-Real-IP: good\r\n\r\n")
    assert request.headers == [(b"host", b"h"), (b"x-real-ip", b"good")]


def test_another_protocol_is_not_spoken():
    """A wish to upgrade is a request like any other, and the last on its connection."""
    (request,) = parse(
        b"GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nxyz"
    )
    assert request.target == b"/chat"
    assert not request.keep_alive


def test_a_client_that_waits_for_the_word_is_known():
    """Until its body begins to arrive."""
    parser = RequestParser(BOUNDS)
    parser.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert parser.wants_continue
    assert parser.in_body
    parser.feed(b"ab")
    assert not parser.wants_continue
    assert parser.ready


HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505|400"),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", "505|400"),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        (b"GET /\r\n\r\n", "400|505"),
        (b"\x16\x03\x01\x02\x00", "400"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "400"),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "400"),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", "400|501"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"),
        (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "400|501"),
        (HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400"),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400|501"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400|501"),
        (HEAD + b"Content-Length: -1\r\n\r\n", "400"),
        (HEAD + b"Content-Length: +3\r\n\r\nabc", "400"),
        (HEAD + b"Content-Length: 0x3\r\n\r\nabc", "400"),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", "400|413"),
        (HEAD + b"Content-Length: 1001\r\n\r\n", "413"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3E9\r\n" + b"x" * 1001, "413"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n", "400"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", "400"),
        (HEAD + b"X: a\x00b\r\n\r\n", "400"),
        (HEAD + b"X: a\rb\r\n\r\n", "400"),
        (HEAD + b"X: a\r\n folded\r\n\r\n", "400"),
        (HEAD + b"X y: a\r\n\r\n", "400"),
        (HEAD + b": a\r\n\r\n", "400"),
        (HEAD + b"Expect: miracles\r\n\r\n", "417"),
        (HEAD + b"X: " + b"a" * 2000 + b"\r\n\r\n", "431"),
        (b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", "431"),
        (HEAD + b"A: b\r\n" * 300, "431"),
    ],
)
def test_what_is_ambiguous_or_too_much_is_refused(data, status):
    """Smuggling, malformed and oversized requests end the connection with a fitting status."""
    with pytest.raises(RequestError) as caught:
        parse(data)
    assert caught.value.status[:3] in status


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=80), max_size=5))
def test_noise_is_refused_or_waited_for(pieces):
    """Nothing but RequestError comes out, whatever comes in."""
    with contextlib.suppress(RequestError):
        parse(*pieces)
