"""The response of PEP 3333: framed so that its end is known."""

import io
from types import SimpleNamespace

import pytest

from preforkd.http.response import LARGE, Renderer
from preforkd.worker.wsgi.response import Response
from tests.http.reading import answering


def made(sink, renderer, **options):
    """Return a response to a request that has arrived."""
    response = Response(answering(), renderer, **options)
    response.sink = sink
    return response


def answer(*parts, status="200 OK", headers=(), whole=False, server="preforkd", **how):
    """Return what is sent, and the response."""
    sent = []
    sink = SimpleNamespace(
        send=sent.append,
        send_nowait=sent.append,
        send_answer=sent.append,
        send_whole=lambda *parts: sent.extend(parts),
    )
    options = {"head_only": False, "http11": True, "keep": True, **how}
    response = made(sink, Renderer(server), **options)
    response.start_response(status, list(headers) if headers == () else headers)
    for part in parts:
        if whole:
            response.send_whole(part)
        else:
            response.write(part)
    if not whole:
        response.finish()
    data = b"".join(sent)
    head, _, body = data.partition(b"\r\n\r\n")
    response.pieces = len(sent)
    return head.decode(), body, response


def test_the_whole_body_gets_a_length_in_one_piece():
    """Head and body are sent together, with a length that was told or one that is counted."""
    for headers in ((), [("Content-Length", "3")]):
        head, body, response = answer(b"abc", headers=headers, whole=True)
        assert head.count("Content-Length: 3") == 1
        assert body == b"abc"
        assert response.pieces == 1
        assert response.keep
        assert response.length == 3


def test_a_body_of_unknown_length_is_chunked():
    """For HTTP/1.1; for HTTP/1.0 the connection's end is the body's."""
    head, body, response = answer(b"abc", b"", b"de")
    assert "Transfer-Encoding: chunked" in head
    assert body == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert response.keep
    head, body, response = answer(b"abc", b"de", http11=False)
    assert "Connection: close" in head
    assert body == b"abcde"
    assert not response.keep


@pytest.mark.parametrize(
    ("how", "status", "body", "keep"),
    [
        ({}, "200 OK", b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", True),
        ({"http11": False}, "200 OK", b"abcde", False),
        ({"head_only": True}, "200 OK", b"", True),
        ({}, "304 Not Modified", b"", True),
    ],
)
@pytest.mark.parametrize("last", [b"cde", b""])
def test_a_list_of_one_may_follow_what_was_written(how, status, body, keep, last):
    """PEP 3333: `write` and then an iterable: its one part is not the whole body, but the body ends there."""
    sent = []
    sink = SimpleNamespace(send=sent.append, send_nowait=sent.append)
    options = {"head_only": False, "http11": True, "keep": True} | how
    response = made(sink, Renderer(""), **options)
    write = response.start_response(status, [])
    write(b"ab")
    response.send_whole(last)
    expected = body if last else body.replace(b"3\r\ncde\r\n", b"").replace(b"cde", b"")
    assert b"".join(sent).partition(b"\r\n\r\n")[2] == expected
    assert response.complete
    assert response.keep is keep


def test_an_old_client_that_keeps_its_connection_is_told_so():
    """HTTP/1.0 closes unless both say otherwise."""
    assert "Connection: keep-alive" in answer(b"abc", whole=True, http11=False)[0]


def test_no_body_has_length_zero():
    """Except where there cannot be one."""
    assert "Content-Length: 0" in answer()[0]
    for status in ("204 No Content", "304 Not Modified"):
        head, body, response = answer(b"ignored", status=status, whole=True)
        assert "Content-Length" not in head
        assert "Transfer-Encoding" not in head
        assert body == b""
        assert response.keep
    assert "Content-Length" not in answer(status="204 x", headers=[("Content-Length", "5")])[0]


def test_head_has_the_headers_of_get_and_no_body():
    """The length is the application's, or that of the whole; one that is not known is not told."""
    head, body, _ = answer(b"abc", head_only=True, whole=True)
    assert "Content-Length: 3" in head
    assert body == b""
    head, body, response = answer(head_only=True, headers=[("Content-Length", "7")])
    assert "Content-Length: 7" in head
    assert body == b""
    assert response.keep
    assert response.flaw == ""
    assert answer(b"a", b"b", head_only=True)[1] == b""
    assert "Content-Length" not in answer(head_only=True)[0]


@pytest.mark.parametrize("whole", [True, False])
def test_more_or_less_than_was_promised(whole):
    """Too much is cut, too little ends the connection: the client must see that it is cut."""
    _, body, response = answer(b"abcdef", headers=[("Content-Length", "3")], whole=whole)
    assert body == b"abc"
    assert response.flaw == "more"
    assert not response.keep
    _, body, response = answer(b"ab", headers=[("Content-Length", "3")], whole=whole)
    assert response.flaw == "less"
    assert not response.keep


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX: y", []),
        ("200 OK\0", []),
        ("OK", []),
        ("600 x", []),
        ("100 Continue", []),
        ("200 OK", [("X\r\nY", "z")]),
        ("200 OK", [("X", "a\r\nSet-Cookie: b")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X", "a\rb")]),
        ("200 OK", [("X", "a\0b")]),
        ("200 OK", [("X Y", "z")]),
        ("200 OK", [("", "z")]),
        ("200 OK", [("Content-Length", "x")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "\N{SUPERSCRIPT TWO}")]),
        ("200 OK", [("Content-Length", "1"), ("content-length", "1")]),
        ("200 OK", [(["unhashable"], "x")]),
        ("200 OK", {"TE": "x", "ab": "y"}),
        ("200 OK", ["ab"]),
        ("200 OK", [("a", "b", "c")]),
        ("200 OK", None),
    ],
)
def test_no_header_is_split(status, headers):
    """What an application passes on from a client cannot become another header."""
    with pytest.raises(ValueError, match=r"not a|twice"):
        answer(status=status, headers=headers)


def test_the_connection_is_ours():
    """Hop-by-hop headers of the application are not sent; its wish to close is heard."""
    headers = [("Connection", "close"), ("Transfer-Encoding", "gzip")]
    for how in ([], [("Content-Length", "1")]):
        head, _, response = answer(b"x", headers=headers + how, whole=True)
        assert head.count("Connection: close") == 1
        assert "gzip" not in head
        assert not response.keep


def test_date_and_server_are_added_unless_they_are_there():
    """One Date, one Server; no Server when it is switched off."""
    own = [("Date", "d"), ("Server", "s"), ("Content-Length", "1")]
    head = answer(b"x", headers=own, whole=True)[0]
    assert head.count("Date:") == head.count("Server:") == 1
    head = answer()[0]
    assert head.count("Date:") == head.count("Server: preforkd") == 1
    assert "Server" not in answer(server="")[0]


def test_headers_may_come_from_a_generator():
    """They are all there, the second time as well."""
    renderer = Renderer("s")
    for _ in range(2):
        plan = renderer.plan("200 OK", (pair for pair in [("X-A", "1"), ("X-B", "2")]))
        assert plan.head == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-B: 2\r\nServer: s\r\n"


def test_a_status_without_a_reason_keeps_its_space():
    """RFC 9112, section 4: the line is malformed without it."""
    for status in ("204", "204 "):
        assert answer(status=status)[0].startswith("HTTP/1.1 204 \r\n")


def test_a_plan_is_made_once():
    """And forgotten before there are too many."""
    renderer = Renderer("s")
    headers = [("Content-Type", "a/b"), ("Content-Length", "1")]
    assert renderer.plan("200 OK", headers) is renderer.plan("200 OK", list(headers))
    for number in range(1000):
        renderer.plan("200 OK", [("X", str(number))])
    assert len(renderer._plans) <= 256


def test_a_file_is_sent_as_a_whole():
    """With its length; not more than was promised."""
    for headers, length in (((), 10), ([("Content-Length", "4")], 4)):
        sent = []
        sink = SimpleNamespace(
            send_nowait=sent.append, send_file=lambda *part, sent=sent: sent.append(part)
        )
        response = made(sink, Renderer(""), head_only=False, http11=True, keep=True)
        response.start_response("200 OK", list(headers))
        file = io.BytesIO(b"x" * 10)
        response.write_file(file, 0, 10)
        assert b"Content-Length: %d\r\n" % length in sent[0]
        assert sent[1] == (file, 0, length)


def test_an_error_is_a_whole_answer():
    """It has a length and closes."""
    head, _, body = Renderer("s").plain_error("400 Bad Request", "why").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Connection: close" in head


def test_only_bytes_are_a_body():
    """Text is refused before anything was sent."""
    for whole in (True, False):
        with pytest.raises(TypeError, match="must be bytes, not str"):
            answer("text", whole=whole)


def test_start_response_twice():
    """PEP 3333: allowed with exc_info before anything was sent, an error otherwise."""
    response = made(
        SimpleNamespace(send=lambda _: None, send_nowait=lambda _: None),
        Renderer(""),
        head_only=False,
        http11=True,
        keep=True,
    )
    with pytest.raises(AssertionError, match="did not call start_response"):
        response.send_whole(b"x")
    response.start_response("200 OK", [])
    with pytest.raises(AssertionError, match="twice"):
        response.start_response("200 OK", [])
    error = KeyError("k")
    info = (KeyError, error, error.__traceback__)
    write = response.start_response("500 Sorry", [], info)
    assert response.code == 500
    write(b"sent")
    with pytest.raises(KeyError):
        response.start_response("500 Sorry", [], info)


@pytest.mark.parametrize(("http11", "expected"), [(True, 2), (False, 0)])
def test_early_hints_precede_the_head(http11, expected):
    """As often as the application likes, for HTTP/1.1 only, and not behind the head."""
    sent = []
    sink = SimpleNamespace(send=sent.append, send_nowait=sent.append)
    response = made(sink, Renderer(""), head_only=False, http11=http11, keep=True)
    for _ in range(2):
        response.early_hints([("Link", "</a.css>; rel=preload")])
    assert sent == [b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"] * expected
    response.start_response("200 OK", [])
    response.write(b"a")
    count = len(sent)
    response.early_hints([("Link", "</b.css>; rel=preload")])
    assert len(sent) == count


def test_invalid_early_hints_are_refused():
    """Before a byte of them is sent."""
    sent = []
    sink = SimpleNamespace(send=sent.append)
    response = made(sink, Renderer(""), head_only=False, http11=True, keep=True)
    with pytest.raises(ValueError, match="not a header"):
        response.early_hints([("Link", "a\r\nSet-Cookie: b")])
    assert not sent


@pytest.mark.parametrize("end_follows", [False, True])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_how_a_rendered_answer_is_sent(end_follows, keep, last):
    """With the end of its connection where that follows at once, not if the application or a hook still runs.

    One of a kept connection may be held back for the other answers of the turn.
    """
    calls = []
    sink = SimpleNamespace(
        send_answer=lambda _: calls.append("answer"),
        send_nowait=lambda _: calls.append("now"),
        send_last=lambda _: calls.append("last"),
    )
    response = made(sink, Renderer(""), head_only=False, http11=True, keep=keep)
    response.end_follows = end_follows
    response.start_response("200 OK", [("Content-Length", "2")])
    response.send_whole(b"ab", last=last)
    assert calls == ["answer" if keep else "last" if end_follows and last else "now"]


def test_a_part_that_is_the_whole_body_is_sent_like_one():
    """As it comes from an iterable; a further part is too much, and ends the connection."""
    one, iterated = (
        answer(b"abc", headers=[("Content-Length", "3")], whole=whole) for whole in (True, False)
    )
    assert iterated[:2] == one[:2]
    assert iterated[2].complete
    assert iterated[2].keep
    head, body, response = answer(b"abc", b"d", headers=[("Content-Length", "3")])
    assert (head, body) == one[:2]
    assert response.flaw == "more"
    assert not response.keep


class Calls:
    """A sink that records which method gets how many bytes."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *parts: self.calls.append((name, *map(len, parts)))


def made_to_record(**how):
    options = {"head_only": False, "http11": True, "keep": True, **how}
    sink = Calls()
    response = made(sink, Renderer(""), **options)
    response._renderer.date = lambda: b""
    return sink, response


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [LARGE - 1, LARGE])
def test_a_large_body_is_not_copied_behind_its_head(known, size):
    """From 32 KiB on, whoever counts its length."""
    sink, response = made_to_record()
    length = [("Content-Length", str(size))]
    response.start_response("200 OK", length if known else [])
    response.send_whole(b"x" * size)
    head = len(b"HTTP/1.1 200 OK\r\nContent-Length: 32768\r\n\r\n")
    how = "send_answer" if known else "send_nowait"
    assert sink.calls == [(how, head + size) if size < LARGE else ("send_whole", head, size)]
    assert response.complete
    assert response.length == size


def test_parts_may_block_and_what_ends_an_answer_does_not():
    """The last chunk, and what is cut at the Content-Length, whose application goes on in vain."""
    sink, response = made_to_record()
    response.start_response("200 OK", [])
    response.write(b"ab")
    response.finish()
    assert [call[0] for call in sink.calls] == ["send", "send_nowait"]
    sink, response = made_to_record()
    response.start_response("200 OK", [("Content-Length", "3")])
    for part in (b"ab", b"cd", b"ef"):
        response.write(part)
    response.finish()
    assert [call[0] for call in sink.calls] == ["send", "send_nowait"]
    sink, response = made_to_record(head_only=True)
    response.start_response("200 OK", [])
    response.write(b"ab")
    response.write(b"cd")
    assert [call[0] for call in sink.calls] == ["send_nowait"]


def test_a_subclass_of_bytes_is_a_body():
    """In one piece and in parts."""

    class Marked(bytes):
        """Text that is safe, in some framework."""

    for whole in (True, False):
        assert answer(Marked(b"abc"), headers=[("Content-Length", "3")], whole=whole)[1] == b"abc"


def test_the_order_of_calls():
    """A body needs start_response; an empty part is none."""
    sink, response = made_to_record()
    with pytest.raises(AssertionError, match="write was called before start_response"):
        response.write(b"x")
    with pytest.raises(AssertionError, match="did not call start_response"):
        response.write_file(io.BytesIO(), 0, 1)
    response.write(b"")
    assert sink.calls == []
    assert not response.started
    response.start_response("200 OK", [])
    assert response.started


def test_the_end_does_not_follow_unless_that_is_known():
    """An answer is sent without waiting for it."""
    sink, response = made_to_record(keep=False)
    response.start_response("200 OK", [("Content-Length", "2")])
    response.send_whole(b"ab", last=True)
    assert sink.calls[0][0] == "send_nowait"


@pytest.mark.parametrize("how", [{"head_only": True}, {}])
def test_a_file_without_a_receiver_is_not_sent(how):
    """For HEAD, and with 304; its length is in the head."""
    sink, response = made_to_record(**how)
    response.start_response("200 OK" if how else "304 Not Modified", [])
    response.write_file(io.BytesIO(b"x" * 10), 0, 10)
    assert [call[0] for call in sink.calls] == ["send_nowait"]
    assert response.complete
    assert response.length == 0
