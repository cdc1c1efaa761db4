"""Heads: taken apart, or refused."""

import httptools
import pytest
from hypothesis import given, settings, strategies as st

from preforkd.http import lines
from preforkd.http.head import CHUNKED, Bounds, HeadParser, RequestError

PARSER = HeadParser(Bounds())


def parse(text, parser=PARSER):
    return parser.parse(text)


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, CLOSE\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", False),
    ],
)
def test_who_keeps_the_connection(text, keep):
    """HTTP/1.1 unless closed, HTTP/1.0 when asked."""
    assert parse(text).keep_alive is keep


def test_lengths():
    """None, counted, in chunks."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\n"
    assert parse(head + b"\r\n").length == 0
    assert parse(head + b"Content-Length: 007\r\n\r\n").length == 7
    assert parse(head + b"Transfer-Encoding: Chunked\r\n\r\n").length == CHUNKED


def test_the_authority_of_an_absolute_target_is_the_host():
    """RFC 9112, 3.2.2."""
    head = parse(b"GET http://other:81/p?q HTTP/1.1\r\nHost: h\r\n\r\n")
    assert head.first(b"host") == b"other:81"
    assert head.target == b"http://other:81/p?q"


def test_a_header_with_an_underscore_is_not_passed_on():
    """To an application it would be the same as one with a hyphen."""
    head = parse(b"GET / HTTP/1.1\r\nHost: h\r\nX_Custom: evil\r\nX-Other: good\r\n\r\n")
    assert head.headers == ((b"host", b"h"), (b"x-other", b"good"))


def test_another_protocol_is_not_spoken():
    """A wish to upgrade is a request like any other."""
    head = parse(
        b"GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    assert head.target == b"/chat"


@pytest.mark.parametrize(
    "host",
    [
        b"h", b"h:80", b"h:", b"[::1]", b"[::1]:80", b"127.0.0.1:8080", b"a_b.c", b"%41", b"[v1.x]",
        b"[vF.a:b]:80", b"H" * 300,
    ],
)  # fmt: skip
def test_good_hosts(host):
    """Names, addresses, ports."""
    assert parse(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host).first(b"host") == host


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        (b"Connection: Upgrade\r\nUpgrade: WebSocket", b"websocket"),
        (b"Upgrade: h2c, websocket\r\nConnection: keep-alive, upgrade", b"websocket"),
        (b"Connection: close\r\nConnection: UPGRADE\r\nUpgrade: h2c\r\nUpgrade: x", b"h2c"),
        (b"Connection: keep-alive\r\nUpgrade: websocket", b""),
        (b"Connection: upgrade", b""),
        (b"Connection: upgraded\r\nUpgrade: websocket", b""),
        (b"X: y", b""),
    ],
)
def test_the_proposed_protocol(fields, upgrade):
    """RFC 9110, 7.8: only with the connection option, and never in HTTP/1.0."""
    assert parse(b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % fields).upgrade == upgrade
    assert parse(b"GET / HTTP/1.0\r\nHost: h\r\n%b\r\n\r\n" % fields).upgrade == b""


@pytest.mark.parametrize("minor", range(2, 10))
def test_a_later_minor_version_is_served_as_1_1(minor):
    """RFC 9110, 2.5; llhttp, which refuses it, still checks all the rest."""
    text = b"POST / HTTP/1.%d\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" % minor
    head = parse(text)
    assert (head.version, head.keep_alive, head.length) == ("1.1", True, CHUNKED)
    assert parse(text.replace(b"1.%d" % minor, b"1.1")) == head


@pytest.mark.parametrize(
    ("codings", "status"),
    [
        (b"gzip, chunked", "501"),
        (b'cow; a="b,\\"c" ;d=e,chunked', "501"),
        (b"cow\r\nTransfer-Encoding: Chunked", "501"),
        (b"gzip", "400"),
        (b"chunked, gzip", "400"),
        (b"chunked , chunked", "400"),
        (b"gzip, chunked, chunked", "400"),
        (b"gzip;, chunked", "400"),
        (b"gzip,, chunked", "400"),
        (b"gzip chunked", "400"),
        (b"chunked;q=1", "400"),
        (b"", "400"),
    ],
)
def test_other_transfer_codings(codings, status):
    """RFC 9112, 6.1: an unknown one is 501; 6.3: a body whose last coding is not chunked has no end, 400."""
    with pytest.raises(RequestError) as caught:
        parse(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: %b\r\n\r\n" % codings)
    assert caught.value.status[:3] == status


HEADS = [
    b"GET / HTTP/1.1\r\nHost: h\r\nProxy-Connection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
]


def judgement(text, parser):
    try:
        return parser.parse(text)
    except RequestError as error:
        return str(error)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(HEADS), min_size=1, max_size=8))
def test_a_judgement_does_not_depend_on_what_was_judged_before(heads):
    """The parser is used again and again; llhttp keeps a state of its own."""
    parser = HeadParser(Bounds())
    for head in heads:
        assert judgement(head, parser) == judgement(head, HeadParser(Bounds()))


class _Oracle:
    def __init__(self):
        self.fields = []

    def on_header(self, name, value):
        self.fields.append((name.lower(), value.strip(b" \t")))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.text("abX-", min_size=1, max_size=6), st.text("ab ,;=\t\"'()\xe4", max_size=10)
        ),
        max_size=6,
    )
)
def test_two_parsers_agree(fields):
    """What is accepted has the fields that llhttp finds by itself."""
    text = b"GET /x HTTP/1.1\r\nHost: h\r\n"
    for name, value in fields:
        text += name.encode() + b": " + value.encode("latin-1") + b"\r\n"
    text += b"\r\n"
    head = parse(text)
    oracle = _Oracle()
    httptools.HttpRequestParser(oracle).feed_data(text)
    assert list(head.headers) == oracle.fields


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.binary(max_size=120))
def test_noise_is_refused(data):
    """Nothing but RequestError comes out, whatever comes in."""
    with pytest.raises(RequestError):
        parse(data + b"\r\n\r\n")


def test_what_is_remembered_is_bounded():
    """Long lines, names and hosts, which only an attacker has, are judged each time."""
    before = lines.cached_field.cache_info()
    long = b"GET / HTTP/1.1\r\nHoSt: %b\r\nX-%b: 1\r\n\r\n" % (b"h" * 300, b"y" * 300)
    assert len(parse(long).headers) == 2
    assert lines.cached_field.cache_info() == before
    assert before.maxsize * lines.MAX_CACHED_SIZE <= 1 << 18
