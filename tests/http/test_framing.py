"""The end of a body is found by its length or by its chunks."""

import httptools
import pytest
from hypothesis import given, settings, strategies as st

from preforkd.http.body import BodyStore
from preforkd.http.framing import framing
from preforkd.http.head import CHUNKED, Bounds, RequestError

BOUNDS = Bounds(max_field=200, max_header=400, max_fields=3, max_body=1000, spool=100)


def take(*pieces, bounds=BOUNDS):
    """Return the body in chunks, and what lies behind it."""
    store, frame = BodyStore(bounds), framing(CHUNKED, bounds)
    rest = b""
    try:
        for piece in pieces:
            end = frame.take(piece, 0, store)
            rest += piece[end:]
    except RequestError:
        store.close()
        raise
    assert frame.done
    with store.finish() as file:
        return file.read(), rest


def test_chunks_are_put_together():
    """Extensions are dropped, trailers are no part of it, and what follows is left."""
    data = b'5;a=b;c="d e"\r\nhello\r\n01\r\n!\r\n0\r\nX-T: 1\r\n\r\nGET /'
    assert take(data) == (b"hello!", b"GET /")
    assert take(*(data[i : i + 1] for i in range(len(data)))) == (b"hello!", b"GET /")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"1 \r\n", b"1\n", b"1\r\r\n", b"1_0\r\n",
        b"g\r\n", b"1;\r\n", b"1;a=\r\n", b"1;a b\r\n", b"1;a=\x00\r\n", b"1 ;a \r\n",
        b'1;a="\r\n', b'1;a="\\"\r\n', b"1;a=b c\r\n", b'1;a="\x7f"\r\n', b"1;a\n",
        b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\rb", b"1\r\na0\r\n\r\n", b"2\r\na\r\n0",
        b"0\r\nX : 1\r\n\r\n", b"0\r\n a: b\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX: \x00\r\n\r\n", b"0\r\n\n",
        b"0\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n", b"1" * 16 + b"\r\n", b"1;" + b"a" * 300,
        b"FFFFFFFFFFFFFFF\r\n" + b"a" * 1001, b"0\r\nX: " + b"a" * 300,
    ],
)  # fmt: skip
def test_tricks_with_chunks_are_refused(data):
    """At once and byte by byte."""
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        with pytest.raises(RequestError):
            take(*pieces)


@pytest.mark.parametrize("blanks", [b"", b" ", b"\t "])
def test_extensions_may_have_blanks_and_quoted_pairs(blanks):
    """RFC 9112, 7.1.1: a recipient parses what it does not know, bad whitespace included."""
    for value in (b"b", b'"x y"', b'"x\\"y;\\\\"', b'"\xe4\t"'):
        line = b"2" + blanks.join((b"", b";", b"a", b"=", value))
        assert take(line + b"\r\nhi\r\n0;z\r\n\r\n") == (b"hi", b"")


def test_a_flood_of_tiny_chunks_is_refused():
    """Each costs more than it brings; 5,000 small ones of a slow producer, or chunks of a line each, do not."""
    bounds = Bounds()
    with pytest.raises(RequestError, match="too small"):
        take(b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n", bounds=bounds)
    assert len(take(b"1\r\na\r\n" * 5000 + b"0\r\n\r\n", bounds=bounds)[0]) == 5000
    assert len(take(b"9\r\n12345678\n\r\n" * 20_000 + b"0\r\n\r\n", bounds=bounds)[0]) == 180_000


class _Oracle:
    def __init__(self):
        self.body = b""
        self.complete = False

    def on_body(self, data):
        self.body += data

    def on_message_complete(self):
        self.complete = True


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from([b"0", b"1", b"2", b"a", b"\r\n", b"\r", b"\n", b";", b"x=y", b"\r\n\r\n"])
    )
)
def test_what_we_accept_llhttp_understands_alike(parts):
    """Whatever is complete for us has the same content for llhttp: never two opinions."""
    data = b"".join(parts)
    store, frame = BodyStore(Bounds()), framing(CHUNKED, Bounds())
    try:
        end = frame.take(data, 0, store)
    except RequestError:
        return
    if not frame.done:
        return
    oracle = _Oracle()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    httptools.HttpRequestParser(oracle).feed_data(head + data[:end])
    assert oracle.complete
    assert oracle.body == store.finish().read()


class Parts:
    """A sink that keeps the parts."""

    def __init__(self):
        self.parts = []

    def write(self, data):
        self.parts.append(data)


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"x\r\n", "400", "a chunk's size is malformed"),
        (b"1\r\nab", "400", "a chunk does not end in CR LF"),
        (b"1\r\na\rb", "400", "a chunk does not end in CR LF"),
        (b"1\n", "400", "a line does not end in CR LF"),
        (b"1;" + b"a" * 256, "400", "a chunk's size or a trailer is too long"),
        (b"0\r\nX: " + b"a" * 199, "400", "a chunk's size or a trailer is too long"),
        (b"3E9\r\n", "413", "the body is too large"),
        (b"3E8\r\n" + b"a" * 1000 + b"\r\n1\r\n", "413", "the body is too large"),
        (b"0\r\n" + b"A: b\r\n" * 4, "431", "the trailers are too large"),
        (b"0\r\n" + (b"A: " + b"b" * 180 + b"\r\n") * 3, "431", "the trailers are too large"),
        (b"0\r\nA : b\r\n", "400", "a trailer is malformed"),
    ],
)
def test_the_reason_is_named(data, status, reason):
    """With the byte that decides, and not before it."""
    frame = framing(CHUNKED, BOUNDS)
    frame.take(data[:-1], 0, Parts())
    with pytest.raises(RequestError) as caught:
        frame.take(data[-1:], 0, Parts())
    assert (caught.value.status[:3], caught.value.reason) == (status, reason)


def test_what_is_missing_of_a_chunk():
    """Its line end is part of it; what arrived is counted, whatever it is called in between."""
    frame, sink = framing(CHUNKED, BOUNDS), Parts()
    for data, rest, received in (
        (b"A\r", 0, 0),
        (b"\n", 12, 0),
        (b"abc", 9, 3),
        (b"defghij", 2, 10),
        (b"\r", 1, 10),
        (b"\n", 0, 10),
    ):
        assert frame.take(data, 0, sink) == len(data)
        assert (frame.rest, frame.received, frame.done) == (rest, received, False)
    assert frame.take(b"...0\r\nX: y \r\na:\r\n\r\nGET", 3, sink) == 19
    assert frame.done
    assert frame.trailers == ((b"x", b"y"), (b"a", b""))
    assert sink.parts == [b"abc", b"defghij"]


def test_the_least_mean_size_of_chunks():
    """Any size for the first 16,384; further ones must have brought 8 bytes each, all together."""
    for count, fine in ((18_724, True), (18_725, False)):
        frame, data = framing(CHUNKED, Bounds()), b"1\r\na\r\n" * count
        if fine:
            assert frame.take(data, 0, Parts()) == len(data)
            continue
        with pytest.raises(RequestError, match="the chunks are too small"):
            frame.take(data, 0, Parts())


def test_a_body_by_length():
    """It ends with its last byte; nothing is left of one that is empty."""
    frame, sink = framing(5, BOUNDS), Parts()
    assert (frame.done, frame.rest, frame.received, frame.trailers) == (False, 5, 0, ())
    assert frame.take(b"..abc", 2, sink) == 5
    assert (frame.done, frame.rest, frame.received) == (False, 2, 3)
    assert frame.take(b"deGET", 0, sink) == 2
    assert (frame.done, frame.rest, frame.received) == (True, 0, 5)
    assert sink.parts == [b"abc", b"de"]
    assert framing(0, BOUNDS).done
    assert not framing(1000, BOUNDS).done
    with pytest.raises(RequestError, match="the body is too large") as caught:
        framing(1001, BOUNDS)
    assert caught.value.status.startswith("413")
