"""Answers as bytes: rendered once, framed so that their end is known."""

import pytest

from preforkd.http.engine import State
from preforkd.http.response import Renderer, ResponseWriter
from tests.http.reading import answering


def writer(code=200, headers=(), **how):
    made = answering()
    options = {"head_only": False, "http11": True, "keep": True, **how}
    response = ResponseWriter(made, Renderer("s"), **options)
    response.plan = Renderer("s").plan_of(code, headers)
    return made, response


def test_the_plans_of_both_kinds_are_equal():
    """A status and headers in text, and a code and headers in bytes."""
    renderer = Renderer("s")
    text = renderer.plan("404 Not Found", [("X-A", "\xe9"), ("Content-Length", "0")])
    code = renderer.plan_of(404, [(b"X-A", b"\xe9"), (b"Content-Length", b"0")])
    assert (text.head, text.length, text.code) == (code.head, code.length, code.code)
    assert renderer.plan_of(404, ([b"X-A", b"\xe9"], [b"Content-Length", b"0"])).head == code.head
    assert renderer.plan_of(299, ()).head.startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        (101, ()),
        (600, ()),
        (200, [(b"A\r\nB", b"c")]),
        (200, [(b"A", b"b\r\nC: d")]),
        (200, [(b"", b"b")]),
        (200, [(b"Content-Length", b"1"), (b"content-length", b"1")]),
        (200, [(b"Content-Length", b"1x")]),
        (200, [(b"Content-Length", b"")]),
        (200, [(b"Content-Length", b"\xb2")]),
    ],
)
def test_no_header_is_split(code, headers):
    """Neither by its name nor by its value; an informational or unknown status is no answer."""
    with pytest.raises(ValueError, match=r"not a|twice"):
        Renderer("s").plan_of(code, headers)


@pytest.mark.parametrize("value", ["close", "Close", "x, close", "close , x"])
def test_connection_close_of_the_application(value):
    """It is honoured wherever it stands in the list of options."""
    assert not Renderer("").plan("200 OK", [("Connection", value)]).keep
    assert Renderer("").plan("200 OK", [("Connection", "closed, x")]).keep


def test_the_states_of_an_answer():
    """Begun with its head, ended with its end; then the next request may come."""
    made, response = writer()
    assert response.part(b"").endswith(b"\r\n\r\n")
    assert made.server is State.BODY
    assert response.part(b"ab") == b"2\r\nab\r\n"
    assert response.end() == b"0\r\n\r\n"
    assert made.server is State.IDLE
    assert response.complete
    assert response.length == 2


def test_trailers_follow_the_last_chunk():
    """They are dropped where the body has no chunks."""
    _, response = writer()
    response.part(b"ab")
    assert response.end([("X-Sum", "7")]) == b"0\r\nX-Sum: 7\r\n\r\n"
    made, response = writer(http11=False)
    response.part(b"ab")
    assert response.end([("X-Sum", "7")]) == b""
    assert made.server is State.MUST_CLOSE


def test_early_hints():
    """RFC 8297; the headers are checked as those of an answer."""
    hints = Renderer("s").early_hints([("Link", "</a.css>; rel=preload")])
    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    with pytest.raises(ValueError, match="not a header"):
        Renderer("s").early_hints([("Link", "a\r\n\r\nHTTP/1.1 200 OK")])


def test_an_answer_that_is_too_short_is_the_last():
    """The client must not take it for complete."""
    made, response = writer(headers=[(b"Content-Length", b"3")])
    assert response.part(b"ab").endswith(b"\r\n\r\nab")
    assert response.end() == b""
    assert (response.flaw, response.keep, made.server) == ("less", False, State.MUST_CLOSE)


def test_an_answer_that_is_too_long_is_cut():
    """At its Content-Length."""
    made, response = writer(headers=[(b"Content-Length", b"3")])
    head, body = response.whole(b"abcd")
    assert head.endswith(b"\r\n\r\n")
    assert body == b"abc"
    assert (response.flaw, made.server) == ("more", State.MUST_CLOSE)


def test_a_part_before_the_status_is_an_error():
    """Nothing is made."""
    response = ResponseWriter(answering(), Renderer(""), head_only=False, http11=True, keep=True)
    with pytest.raises(AssertionError, match="before the status"):
        response.part(b"x")


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c"), b"ab", ("a", "b\nc")])
def test_a_header_is_a_pair_in_a_tuple(pair):
    """PEP 3333; anything else is named in the error."""
    with pytest.raises(ValueError, match="not a header") as raised:
        Renderer("").plan("200 OK", [pair])
    assert repr(pair) in str(raised.value) or "b\\nc" in str(raised.value)


def test_headers_that_are_no_list():
    """Lists as pairs, or nothing to iterate over; a generator is read once."""
    for headers in ([["a", "b"]], None, 7):
        with pytest.raises(ValueError, match="not a list of headers"):
            Renderer("").plan("200 OK", headers)
    plan = Renderer("").plan("200 OK", (pair for pair in [("A", "b")]))
    assert plan.head == b"HTTP/1.1 200 OK\r\nA: b\r\n"


def test_headers_of_the_connection_are_the_servers():
    """Those of the application are dropped, RFC 9110, section 7.6.1, and its Date and Server replace ours."""
    names = ["Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE"]
    names += ["Trailer", "Trailers", "Transfer-Encoding", "Upgrade"]
    plan = Renderer("s").plan("200 OK", [(name, "x") for name in names])
    assert plan.head == b"HTTP/1.1 200 OK\r\nServer: s\r\n"
    assert (plan.keep, plan.date, plan.simple) == (True, True, True)
    plan = Renderer("s").plan("200 OK", [("SERVER", "t"), ("DATE", "now")])
    assert plan.head == b"HTTP/1.1 200 OK\r\nSERVER: t\r\nDATE: now\r\n"
    assert (plan.date, plan.simple) == (False, False)


def test_plans_are_kept_unless_their_heads_are_large():
    """Up to 2,048 bytes, those of both kinds."""
    renderer, rest = Renderer(""), len(b"HTTP/1.1 200 OK\r\nA: \r\n")
    for size, kept in ((2048, True), (2049, False)):
        text, fields = [("A", "b" * (size - rest))], [(b"A", b"b" * (size - rest))]
        assert (renderer.plan("200 OK", text) is renderer.plan("200 OK", text)) is kept
        assert (renderer.plan_of(200, fields) is renderer.plan_of(200, fields)) is kept


@pytest.mark.parametrize(
    ("how", "length", "expected"),
    [
        ({}, 2, [b"Content-Length: 2"]),
        ({}, None, [b"Transfer-Encoding: chunked"]),
        ({"keep": False}, 2, [b"Content-Length: 2", b"Connection: close"]),
        ({"http11": False}, 2, [b"Content-Length: 2", b"Connection: keep-alive"]),
        ({"http11": False}, None, [b"Connection: close"]),
        ({"http11": False, "keep": False}, 2, [b"Content-Length: 2", b"Connection: close"]),
        ({"code": 204}, None, []),
        ({"code": 304}, 2, []),
        ({"head_only": True}, 0, []),
        ({"head_only": True}, 2, [b"Content-Length: 2"]),
    ],
)
def test_how_a_head_frames_its_body(how, length, expected):
    """By a length, by chunks, or by the end of the connection, RFC 9112, section 6."""
    _, response = writer(**how)
    lines = response.begin(length).split(b"\r\n")
    lines = [line for line in lines[1:-2] if not line.startswith((b"Date: ", b"Server: "))]
    assert lines == expected


def test_answers_of_the_servers_own():
    """In plain text with their length; HEAD gets the head alone."""
    renderer = Renderer("")
    renderer.date = lambda: b""
    added = [("Upgrade", "websocket")]
    whole = renderer.plain_error("426 Upgrade Required", "x", added)
    assert whole == (
        b"HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 24\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n"
        b"426 Upgrade Required: x\n"
    )
    head = renderer.plain_error("426 Upgrade Required", "x", added, head_only=True)
    assert head + b"426 Upgrade Required: x\n" == whole


@pytest.mark.parametrize(
    ("which", "leaving", "start", "body"),
    [
        ("alive", False, b"HTTP/1.1 200 OK\r\n", b"ok\n"),
        ("alive", True, b"HTTP/1.1 200 OK\r\n", b"ok\n"),
        ("ready", False, b"HTTP/1.1 200 OK\r\n", b"ok\n"),
        ("ready", True, b"HTTP/1.1 503 Service Unavailable\r\n", b"leaving\n"),
    ],
)
def test_probes(which, leaving, start, body):
    """A worker that leaves is alive and not ready; the connection is kept as it is asked for."""
    for keep in (True, False):
        for head_only in (True, False):
            answer = Renderer("").probe(which, leaving=leaving, keep=keep, head_only=head_only)
            head, _, rest = answer.partition(b"\r\n\r\n")
            assert head.startswith(start)
            assert head.endswith(b"\r\nConnection: close") is not keep
            assert rest == (b"" if head_only else body)
