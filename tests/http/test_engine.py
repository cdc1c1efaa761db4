"""The engine: requests are complete whatever the pieces they come in, and no step out of order is taken."""

import pytest
from hypothesis import given, settings, strategies as st

from preforkd.http.engine import EndOfRequest, RequestError, State
from preforkd.http.head import Bounds
from tests.http.reading import BOUNDS, GET, Reading, Sink, answering, engine, read

POST = b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-Y: 1\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_request_in_any_pieces_is_the_same():
    """Byte by byte or at once; method, target, headers in order and lower case, body."""
    for pieces in ([POST], [POST[:20], POST[20:]], [POST[i : i + 1] for i in range(len(POST))]):
        (request,) = read(*pieces)
        head = request.head
        assert (head.method, head.target, head.version) == ("POST", b"/a?b", "1.1")
        assert head.headers == ((b"host", b"h"), (b"x-y", b"1"), (b"content-length", b"3"))
        assert request.body == b"abc"
        assert head.keep_alive


def test_pipelined_requests_are_returned_in_order():
    """With and without bodies."""
    requests = read(GET % b"1" + POST + GET % b"2")
    assert [request.head.target for request in requests] == [b"/1", b"/a?b", b"/2"]


def test_an_empty_line_before_a_request_is_ignored():
    """RFC 9112, section 2.2; and no request is begun by it."""
    made = engine()
    made.receive(b"\r\n")
    assert made.next_event() is None
    assert made.idle
    made.receive(GET % b"")
    assert not made.idle
    assert made.next_event().head.target == b"/"


def test_empty_lines_before_a_request_are_skipped_in_linear_time():
    """Line by line, with a copy for each, a megabyte of them would take hours."""
    made = engine()
    made.receive(b"\r\n" * 2_000_000 + GET % b"2")
    assert made.next_event().head.target == b"/2"


def test_a_client_that_expects_100_continue():
    """``wants_continue`` is set until its body begins to arrive."""
    made = engine()
    made.receive(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert made.next_event().head.method == "POST"
    assert made.wants_continue
    made.sink = sink = Sink()
    assert made.next_event() is None
    made.receive(b"ab")
    assert isinstance(made.next_event(), EndOfRequest)
    assert sink.parts == [b"ab"]
    assert not made.wants_continue


def test_a_request_behind_one_that_is_answered_waits():
    """It is not evaluated before the answer is complete, whatever it is."""
    made = engine()
    made.receive(GET % b"1" + b"\0garbage\r\n\r\n")
    assert made.next_event().head.target == b"/1"
    assert made.next_event() is None
    assert (made.client, made.server) == (State.DONE, State.HEAD)
    made.answer_begun()
    made.answer_ended(keep=True)
    with pytest.raises(RequestError):
        made.next_event()
    assert made.client is State.MUST_CLOSE
    made.refused()
    assert made.server is State.MUST_CLOSE
    assert made.unread
    assert made.ended
    made.receive(GET % b"2")
    assert made.next_event() is None


def test_no_request_follows_the_last_answer():
    """What arrives behind it is dropped, and the connection is closed without a reset."""
    made = engine()
    made.receive(GET % b"1" + GET % b"2")
    made.next_event()
    made.answer_ended(keep=False)
    assert made.unread
    assert made.next_event() is None
    assert made.buffer == b""


@pytest.mark.parametrize(
    ("option", "rest", "unread"),
    [
        (b"Connection: close\r\n", b"", False),
        (b"Connection: close\r\n", b"x", True),
        (b"", b"", True),
    ],
)
def test_input_that_may_be_left_unread(option, rest, unread):
    """A client that announced the end and kept to it sends nothing that a reset could answer."""
    made = engine()
    made.receive(b"GET / HTTP/1.1\r\nHost: h\r\n" + option + b"\r\n" + rest)
    made.next_event()
    made.answer_ended(keep=False)
    assert made.unread is unread


def test_a_half_closed_client_gets_its_answers():
    """The end of input ends the connection only behind the last complete request."""
    made = engine()
    made.receive(GET % b"1" + GET % b"2")
    made.receive(b"")
    for target in (b"/1", b"/2"):
        assert made.next_event().head.target == target
        assert made.next_event() is None
        assert not made.ended
        made.answer_ended(keep=True)
    assert made.next_event() is None
    assert made.client is State.CLOSED
    assert not made.unread
    assert not made.incomplete


@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET / HT", POST[:-1], CHUNKED + b"2\r\na"])
def test_the_end_of_input_within_a_request(data):
    """There is no request any more; the client's side is closed."""
    made = engine()
    made.receive(data or b"\r\n")
    if made.next_event() is not None:
        made.sink = Sink()
        made.next_event()
    made.receive(b"")
    assert made.next_event() is None
    assert made.client is State.CLOSED
    assert made.ended
    assert made.incomplete is bool(data.strip())


def test_an_answer_before_the_end_of_the_body():
    """The next cycle begins when the body is complete as well."""
    made = engine()
    made.receive(POST[:-1])
    made.next_event()
    made.sink = Sink()
    assert made.next_event() is None
    assert (made.received, made.expected) == (2, 1)
    made.answer_begun()
    made.answer_ended(keep=True)
    assert (made.client, made.server) == (State.BODY, State.DONE)
    made.receive(b"c" + GET % b"2")
    assert isinstance(made.next_event(), EndOfRequest)
    assert made.next_event().head.target == b"/2"


def test_trailers_are_kept_apart():
    """They come with the end of the request, and are not among its headers."""
    (request,) = read(CHUNKED + b"2;a=b\r\nhi\r\n0\r\nX-Sum: 7 \r\n\r\n")
    assert request.trailers == ((b"x-sum", b"7"),)
    assert request.body == b"hi"
    assert dict(request.head.headers).keys() == {b"host", b"transfer-encoding"}


def test_an_error_of_the_sink_ends_the_connection():
    """The position of the next request is not reached any more."""

    class Full:
        def write(self, data):
            raise OSError("full")

    made = engine()
    made.receive(POST)
    made.next_event()
    made.sink = Full()
    with pytest.raises(OSError, match="full"):
        made.next_event()
    assert made.client is State.MUST_CLOSE


def test_an_upgrade_gives_away_what_follows_the_head():
    """Both sides belong to the other protocol; nothing is evaluated any more."""
    made = engine()
    made.receive(GET % b"" + b"frames")
    made.next_event()
    assert made.upgrade() == b"frames"
    assert made.client is made.server is State.UPGRADED
    made.aborted()
    assert made.client is made.server is State.CLOSED


def test_a_request_of_another_process_is_taken_as_it_is():
    """With the input behind it."""
    parsed = answering().parsed
    made = engine()
    made.take_whole(parsed, GET % b"2")
    made.answer_ended(keep=True)
    assert made.next_event().head.target == b"/2"


@pytest.mark.parametrize(
    "step",
    [
        lambda made: made.answer_begun(),
        lambda made: made.answer_ended(keep=True),
        lambda made: made.answer_ended(keep=False),
        lambda made: made.upgrade(),
    ],
)
def test_a_step_that_is_not_legal(step):
    """Without a request there is no answer: a defect of the caller."""
    with pytest.raises(AssertionError, match="not legal"):
        step(engine())


def test_a_second_request_before_the_answer_is_not_legal():
    """Of a caller that takes a whole request."""
    made = answering()
    with pytest.raises(AssertionError, match="not legal"):
        made.take_whole(made.parsed)


def test_no_request_comes_after_a_refused_one():
    """The refusal is the last event."""
    made = engine()
    made.receive(b"GET / HTTP/1.1\r\n\r\n" + GET % b"2")
    with pytest.raises(RequestError):
        made.next_event()
    assert made.parsed is None
    assert made.next_event() is None


@pytest.mark.parametrize("data", [POST, CHUNKED + b"%x\r\n" % len(POST)], ids=["length", "chunk"])
def test_a_body_over_the_bound_is_refused(data):
    """As soon as its size is announced."""
    bounds = Bounds(max_body=2)
    made = engine(bounds)
    made.receive(data)
    if data is not POST:
        made.next_event()
        made.sink = Sink()
    with pytest.raises(RequestError, match="too large") as caught:
        made.next_event()
    assert caught.value.status.startswith("413")


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
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]  # an empty one is the end of input


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_any_conversation_in_any_pieces_is_read_as_it_was_meant(data):
    """The same requests, once each and complete, however the bytes are cut."""
    wanted, raw = data.draw(conversations())
    requests = read(*data.draw(pieces_of(raw)))
    assert [(request.head.target, request.body) for request in requests] == wanted


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
        reading = Reading()
        try:
            for piece in pieces:
                reading.feed(piece)
        except RequestError as error:
            return reading.requests, error.status[:3]
        return reading.requests, None

    whole, refusal = outcome([bytes(damaged)])
    cut, cut_refusal = outcome(data.draw(pieces_of(bytes(damaged))))
    assert cut == whole
    assert (cut_refusal is None) == (refusal is None)


def test_bounds_are_kept_in_every_piece():
    """A head that is too large is refused before it is complete."""
    made = engine()

    def flood():
        made.receive(b"GET / HTTP/1.1\r\n")
        for _ in range(100):
            made.receive(b"A: " + b"b" * 70 + b"\r\n")
            made.next_event()

    with pytest.raises(RequestError, match="too large") as caught:
        flood()
    assert caught.value.status.startswith("431")
    assert len(made.buffer) <= BOUNDS.max_header + 100
