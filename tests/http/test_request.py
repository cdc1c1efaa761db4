"""Requests: complete, whatever the pieces they come in."""

import pytest
from hypothesis import given, settings, strategies as st

from preforkd.http.request import RequestError
from tests.http.reading import BOUNDS, read, reader

POST = b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-Y: 1\r\nContent-Length: 3\r\n\r\nabc"
GET = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_request_in_any_pieces_is_the_same():
    """Byte by byte or at once; method, target, headers in order and lower case, body."""
    for pieces in ([POST], [POST[:20], POST[20:]], [POST[i : i + 1] for i in range(len(POST))]):
        (request,) = read(*pieces)
        head = request.cached.head
        assert (head.method, head.target, head.version) == ("POST", b"/a?b", "1.1")
        assert head.headers == ((b"host", b"h"), (b"x-y", b"1"), (b"content-length", b"3"))
        assert request.body.read() == b"abc"
        assert head.keep_alive


def test_pipelined_requests_are_all_there():
    """In their order, with and without bodies."""
    requests = read(GET % b"1" + POST + GET % b"2")
    assert [request.cached.head.target for request in requests] == [b"/1", b"/a?b", b"/2"]


def test_an_empty_line_before_a_request_is_ignored():
    """RFC 9112, 2.2; and nothing is begun by it."""
    made = reader()
    made.feed(b"\r\n")
    assert made.next() is None
    assert not made.started
    made.feed(GET % b"")
    assert made.next() is not None


def test_a_client_that_waits_for_the_word_is_known():
    """Until its body begins to arrive."""
    made = reader()
    made.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert made.next() is None
    assert made.wants_continue
    assert made.in_body
    made.feed(b"ab")
    assert made.next().body.read() == b"ab"
    assert not made.wants_continue


def test_what_follows_a_request_stays_where_it_is():
    """For another worker, or for later."""
    made = reader()
    made.feed(GET % b"1" + b"GET /2 HT")
    assert made.next() is not None
    assert made.buffer == b"GET /2 HT"
    made.close()


def test_no_request_comes_after_a_refused_one():
    """The refusal is the last that a reader says."""
    made = reader()
    made.feed(b"GET / HTTP/1.1\r\n\r\n" + GET % b"2")
    with pytest.raises(RequestError):
        made.next()


def test_empty_lines_before_a_request_are_skipped_in_linear_time():
    """Line by line, a copy for each, a megabyte of them would take hours."""
    made = reader()
    made.feed(b"\r\n" * 2_000_000 + GET % b"2")
    assert made.next().cached.head.target == b"/2"


@st.composite
def conversations(draw):
    """Valid requests, and the bytes that carry them."""
    wanted, data = [], b""
    for _ in range(draw(st.integers(1, 4))):
        target = b"/" + draw(st.text("abc/?=", max_size=8)).encode()
        body = draw(st.binary(max_size=150))
        kind = draw(st.sampled_from(["none", "length", "chunks"]))
        head = target + b" HTTP/1.1\r\nHost: h\r\n"
        if kind == "none":
            body = b""
            data += b"GET " + head + b"\r\n"
        elif kind == "length":
            data += b"POST " + head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            data += b"POST " + head + b"Transfer-Encoding: chunked\r\n\r\n"
            rest = body
            while rest:
                size = draw(st.integers(1, len(rest)))
                data += b"%x\r\n%b\r\n" % (size, rest[:size])
                rest = rest[size:]
            data += b"0\r\n\r\n"
        wanted.append((target, body))
    return wanted, data


@st.composite
def pieces_of(draw, data):
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_any_conversation_in_any_pieces_is_read_as_it_was_meant(data):
    """The same requests, once each and complete, however the bytes are cut."""
    wanted, raw = data.draw(conversations())
    requests = read(*data.draw(pieces_of(raw)))
    got = [(request.cached.head.target, request.body.read()) for request in requests]
    for request in requests:
        request.body.close()
    assert got == wanted


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damage_ends_in_a_refusal_or_in_waiting(data):
    """A conversation with bytes changed raises RequestError or nothing, in every cut the same."""
    _, raw = data.draw(conversations())
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.sampled_from(b"\0\t\r\n :;,_-=+aZ09\x80\xff"))

    def outcome(pieces):
        made, got = reader(), []
        try:
            for piece in pieces:
                made.feed(piece)
                while (request := made.next()) is not None:
                    got.append((request.cached.head, request.body.read()))
                    request.body.close()
        except RequestError as error:
            return got, error.status[:3]
        finally:
            made.close()
        return got, None

    whole, refusal = outcome([bytes(damaged)])
    cut, cut_refusal = outcome(data.draw(pieces_of(bytes(damaged))))
    assert cut == whole
    assert (cut_refusal is None) == (refusal is None)


def test_bounds_are_kept_in_every_piece():
    """A head that is too large is refused before it is complete."""
    made = reader()

    def flood():
        made.feed(b"GET / HTTP/1.1\r\n")
        for _ in range(100):
            made.feed(b"A: " + b"b" * 70 + b"\r\n")
            made.next()

    with pytest.raises(RequestError, match="too large") as caught:
        flood()
    assert caught.value.status.startswith("431")
    assert len(made.buffer) <= BOUNDS.max_header + 100
