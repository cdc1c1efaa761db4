"""Heads: taken apart, or refused."""

import contextlib
import re

import httptools
import pytest
from hypothesis import given, settings, strategies as st

from preforkd.http import lines
from preforkd.http.head import (
    CHUNKED,
    Bounds,
    HeadParser,
    RequestError,
    RequestHead,
    unparsed_head,
)
from tests.http.attacks import ATTACKS

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


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        (b"Content-Length: 3\r\nContent-Length: 3", "400", "the length of the body is ambiguous"),
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked", "400", "the length of the body is ambiguous"),
        (b"Transfer-Encoding: gzip, chunked", "501", "the only supported transfer coding is chunked"),
        (b"Transfer-Encoding: gzip", "400", "the last transfer coding is not chunked"),
        (b"Host: h", "400", "exactly one Host header is required"),
        (b"Expect: x", "417", "the only supported expectation is 100-continue"),
        (b"Expect: x\r\nExpect: 100-continue", "417", "the only supported expectation is 100-continue"),
        (b"X-A: 1\r\nX_A: 1", "400", "a header with an underscore imitates another"),
        (b"X_Forwarded_Port: 1", "400", "a header with an underscore imitates another"),
        (b"X : y", "400", "a header is malformed"),
        (b"X: y\r\n\r\nY: z", "400", "a header is malformed"),
        (b"Content-Length: x", "400", "Content-Length is not a number"),
        (b"Content-Length: " + b"9" * 19, "413", "the body is too large"),
        (b"X: " + b"y" * 16400, "431", "a header is too large"),
        (b"A: b\r\n" * 99 + b"A: b", "431", "there are too many headers"),
        ((b"X: " + b"y" * 12000 + b"\r\n") * 2 + b"X: " + b"y" * 12000, "431", "the headers are too large"),
    ],
)  # fmt: skip
def test_the_reason_is_named(fields, status, reason):
    """The client and its administrator read which rule refused the head."""
    with pytest.raises(RequestError) as caught:
        parse(b"POST / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % fields)
    assert (caught.value.status[:3], caught.value.reason) == (status, reason)


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"GET / HTTP/2.0", "505", "the supported versions are 1.0 and 1.1"),
        (b"BREW / HTTP/1.1", "501", "unknown method"),
        (b"brew / HTTP/1.1", "400", "unknown method"),
        (b"CONNECT h:1 HTTP/1.1", "501", "CONNECT is not supported"),
        (b"GET /#x HTTP/1.1", "400", "the target is malformed"),
        (b"GET /%x HTTP/1.1", "400", "the target is malformed"),
        (b"GET /%00 HTTP/1.1", "400", "the target contains a NUL"),
        (b"GET * HTTP/1.1", "400", "the target * is allowed for OPTIONS only"),
        (b"GET x HTTP/1.1", "400", "the target is neither a path nor a URL"),
        (b"GET ws://h/ HTTP/1.1", "400", "the target is neither a path nor a URL"),
        (b"GET http://u@h/ HTTP/1.1", "400", "the target's authority is malformed"),
        (b"GET  / HTTP/1.1", "400", "the request line is malformed"),
        (b"\0", "400", "not an HTTP request"),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1", "414", "the request line is too long"),
    ],
)
def test_the_reason_of_a_request_line(line, status, reason):
    """Before anything that is wrong behind it."""
    with pytest.raises(RequestError) as caught:
        parse(line + b"\r\nX : y\r\n\r\n")
    assert (caught.value.status[:3], caught.value.reason) == (status, reason)


def test_a_head_in_full():
    """Every field of the record."""
    text = (
        b"PUT /a?b HTTP/1.1\r\nHost: h\r\nX_A: 1\r\nX_B: 2\r\nContent-Length: 0012\r\nExpect: 100-Continue\r\n"
        b"Connection: close, Upgrade\r\nUpgrade: h2c\r\nX:\t y \r\n\r\n"
    )
    fields = {
        b"host": b"h",
        b"content-length": b"0012",
        b"expect": b"100-Continue",
        b"connection": b"close, Upgrade",
        b"upgrade": b"h2c",
        b"x": b"y",
    }
    head = RequestHead("PUT", b"/a?b", "1.1", tuple(fields.items()), False, 12, True, b"h2c", 2)
    assert parse(text) == head
    assert head.first(b"x") == b"y"
    assert head.first(b"y") is None
    old = b"PUT /a?b HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"
    assert parse(old) == RequestHead(
        "PUT", b"/a?b", "1.0", ((b"expect", b"100-continue"),), False, 0, False
    )


@pytest.mark.parametrize(
    ("data", "method", "target", "version"),
    [
        (b"GET /x HTTP/1.1\r\nX : y\r\n", "GET", b"/x", "1.1"),
        (b"GET /x HTTP/3.7\nX", "GET", b"/x", "3.7"),
        (b"GET /x HTTP/1.1", "GET", b"/x", "1.1"),
        (b"GET /x y HTTP/1.1\r\n", "", b"GET /x y HTTP/1.1", ""),
        (b"\x16\x03\rabc\n", "", b"\x16\x03", ""),
        (b"a" * 4000, "", b"a" * 2048, ""),
        (b"", "", b"", ""),
    ],
)
def test_what_the_access_log_shows_of_a_refused_request(data, method, target, version):
    """Its request line; all of that is the target if it is invalid, up to a bound."""
    head = unparsed_head(data)
    assert (head.method, head.target, head.version, head.headers) == (method, target, version, ())
    assert (head.keep_alive, head.length, head.expects_continue) == (False, 0, False)


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
    b"GET http://a:1/b?c HTTP/1.1\r\nHost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
]


INSERTED = [bytes([number]) for number in range(256)] + [
    *(b"\r\n", b"\n", b"\r", b" HTTP/1.1", b"http://", b"[::1]", b"Host: h\r\n", b"Content-Length: 1\r\n"),
    *(b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade: h2c\r\n", b"X_Y: z\r\n", b": "),
    *(method + b" " for method in sorted(lines.METHODS)),
]  # fmt: skip
ONLY_OURS = {
    method
    for method in lines.METHODS
    if b"-" in method.replace(b"M-SEARCH", b"")
    or method
    in {b"CHECKIN", b"LABEL", b"MKREDIRECTREF", b"MKWORKSPACE", b"ORDERPATCH", b"UNCHECKOUT"}
    or method.startswith(b"UPDATE")
}
"""Registered methods that llhttp does not know."""


class _Oracle:
    def __init__(self):
        self.fields = []
        self.url = b""

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        self.fields.append((name.lower(), value.strip(b" \t")))


def oracle_of(text):
    """Return what llhttp finds in a head that it accepts."""
    oracle = _Oracle()
    with contextlib.suppress(httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(oracle).feed_data(text)
    return oracle


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
    assert list(parse(text).headers) == oracle_of(text).fields


def check_with_oracle(text):
    """Return whether a head is accepted; if it is, llhttp accepts it and finds the same.

    Except for what the parser knows and llhttp does not: methods, and the authority of a URL in place of Host.
    """
    try:
        head = parse(text)
    except RequestError:
        return False
    line = lines.REQUEST_LINE.match(text)
    if line[1] in ONLY_OURS:
        text = b"GET" + text[len(line[1]) :]
    oracle = oracle_of(text[: line.start(4)] + head.version[-1:].encode() + text[line.end(4) :])
    assert oracle.url == head.target
    authority = re.match(rb"[a-zA-Z]+://([^/?]*)", head.target)
    fields = [
        (name, authority[1] if authority and name == b"host" else value)
        for name, value in oracle.fields
        if b"_" not in name
    ]
    assert list(head.headers) == fields
    return True


def test_llhttp_accepts_the_rows_of_the_attack_table_that_are_accepted():
    """What is accepted is nothing that another strict parser finds wrong, and has the same fields there."""
    heads = {
        row.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        for rows in ATTACKS.values()
        for row in rows
    }
    assert sum(map(check_with_oracle, heads)) > 100


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(st.sampled_from(HEADS), st.integers(0, 120), st.integers(0, 3), st.sampled_from(INSERTED))
def test_llhttp_accepts_what_is_accepted(head, at, deleted, inserted):
    """A valid head with some bytes replaced is refused, or valid for llhttp, too."""
    check_with_oracle(head[:at] + inserted + head[at + deleted :])


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
