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
