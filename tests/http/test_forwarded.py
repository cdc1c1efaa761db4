"""Forwarded headers."""

import re

import pytest
from hypothesis import given, strategies as st

from preforkd.http.forwarded import (
    Origin,
    Trust,
    _elements,
    forwarded,
    with_host,
)
from preforkd.http.head import Bounds, HeadParser

TRUST = Trust(["10.0.0.0/8", "::1", "unix"])


def head(fields):
    return HeadParser(Bounds()).parse(b"GET / HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")


def test_who_is_trusted():
    """Networks, addresses, mapped addresses, Unix sockets."""
    assert [TRUST.trusts(peer) for peer in ("10.1.2.3", "::1", "", "::ffff:10.0.0.1")] == [True] * 4
    assert [TRUST.trusts(peer) for peer in ("11.0.0.1", "::2", "nonsense")] == [False] * 3
    mapped = Trust(["::ffff:10.0.0.0/104", "::ffff:1.2.3.4", "2001:db8::/32"])
    peers = ("10.9.9.9", "::ffff:10.9.9.9", "1.2.3.4", "2001:db8::1", "11.0.0.1", "1.2.3.5")
    assert [mapped.trusts(peer) for peer in peers] == [True] * 4 + [False] * 2
    assert not Trust([])
    assert not Trust(["1.2.3.4"]).trusts("")


@pytest.mark.parametrize(
    ("fields", "style", "origin"),
    [
        (b"X-Forwarded-For: 1.1.1.1\r\n", "x-forwarded", Origin("1.1.1.1")),
        (b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.1\r\n", "x-forwarded", Origin("1.1.1.1")),
        (b"X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n", "x-forwarded", Origin("10.0.0.2")),
        (b"X-Forwarded-For: 1.1.1.1:80\r\n", "x-forwarded", Origin("1.1.1.1")),
        (b"X-Forwarded-For: [2001:db8::1]:80\r\n", "x-forwarded", Origin("2001:db8::1")),
        (b"X-Forwarded-For: 2001:db8::1\r\n", "x-forwarded", Origin("2001:db8::1")),
        (b"X-Forwarded-For: ::ffff:1.1.1.1\r\n", "x-forwarded", Origin("1.1.1.1")),
        (b"X-Forwarded-For: [::ffff:101:101]:80, ::ffff:10.0.0.1\r\n", "x-forwarded", Origin("1.1.1.1")),
        (b'Forwarded: for="[::ffff:1.1.1.1]:80"\r\n', "forwarded", Origin("1.1.1.1")),
        (b"X-Forwarded-For: evil, 10.0.0.1\r\n", "x-forwarded", Origin("10.0.0.1")),
        (b"X-Forwarded-For: evil\r\n", "x-forwarded", Origin()),
        (b"X-Forwarded-For:\r\n", "x-forwarded", Origin()),
        (b"X-Forwarded-Proto: HTTPS\r\n", "x-forwarded", Origin(None, "https")),
        (b"X-Forwarded-Proto: gopher\r\n", "x-forwarded", Origin()),
        (b"X-Forwarded-Proto: http, https\r\n", "x-forwarded", Origin(None, "https")),
        (b"Forwarded: for=1.1.1.1\r\n", "x-forwarded", Origin()),
        (b"X-Forwarded-For: 1.1.1.1\r\n", "forwarded", Origin()),
        (b"Forwarded: for=1.1.1.1;proto=https\r\n", "forwarded", Origin("1.1.1.1", "https")),
        (b'Forwarded: For="[2001:db8::1]:4711", for=10.0.0.1\r\n', "forwarded", Origin("2001:db8::1")),
        (b'Forwarded: for="1.1.1.1:5,x";proto=http\r\n', "forwarded", Origin(None, "http")),
        (b"Forwarded: for=_hidden\r\n", "forwarded", Origin()),
        (b"Forwarded: for=6.6.6.6\r\nForwarded: for=1.1.1.1, for=10.0.0.1\r\n", "forwarded", Origin("1.1.1.1")),
        (b'Forwarded: for="6.6.6.6\r\nForwarded: for=1.1.1.1;proto=https\r\n', "forwarded", Origin("1.1.1.1", "https")),
        (b"Forwarded: for=10.0.0.2;proto=http, for=10.0.0.1;proto=https\r\n", "forwarded", Origin("10.0.0.2", "https")),
        (b"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http \r\n", "x-forwarded", Origin(None, "http")),
        (b"Forwarded: for=1.1.1.1;for=2.2.2.2\r\n", "forwarded", Origin()),
        (b"Forwarded: nonsense nonsense\r\n", "forwarded", Origin()),
    ],
)  # fmt: skip
def test_what_the_proxies_said(fields, style, origin):
    """From the nearest outwards; what cannot be understood was not said."""
    assert forwarded(head(fields), style, TRUST) == origin


ALL = ("for", "proto", "host", "port", "prefix")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"X-Forwarded-Host: a.b\r\n", ("a.b", None, b"a.b")),
        (b"X-Forwarded-Host: evil, a.b:81\r\n", ("a.b", "81", b"a.b:81")),
        (b"X-Forwarded-Host: evil\r\nX-Forwarded-Host: a.b\t\r\n", ("a.b", None, b"a.b")),
        (b"X-Forwarded-Host: [::1]\r\n", ("[::1]", None, b"[::1]")),
        (b"X-Forwarded-Host: [::1]:8\r\n", ("[::1]", "8", b"[::1]:8")),
        (b"X-Forwarded-Host: a.b:81\r\nX-Forwarded-Port: 82\r\n", ("a.b", "82", b"a.b:82")),
        (b"X-Forwarded-Host: [::1]\r\nX-Forwarded-Port: 82\r\n", ("[::1]", "82", b"[::1]:82")),
        (b"X-Forwarded-Port: 1, 443\r\n", (None, "443", b"h:443")),
        (b"X-Forwarded-Port: 65535\r\n", (None, "65535", b"h:65535")),
        (b"X-Forwarded-Port: 65536\r\n", (None, None, None)),
        (b"X-Forwarded-Port: 0\r\n", (None, None, None)),
        (b"X-Forwarded-Port: x\r\n", (None, None, None)),
        (b"X-Forwarded-Host: a.b, u@h\r\n", (None, None, None)),
        (b"X-Forwarded-Host: a.b:\r\n", ("a.b", None, b"a.b:")),
        (b"X-Forwarded-Host:\r\n", (None, None, None)),
        (b"X-Forwarded-Host: \xe4\r\n", (None, None, None)),
    ],
)
def test_host_and_port(fields, expected):
    """Of the nearest proxy; the port by itself is that of the host, as with Werkzeug's ProxyFix."""
    origin = forwarded(head(fields), "x-forwarded", TRUST, ALL)
    assert (origin.host, origin.port, origin.authority) == expected


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        (b"/shop", "/shop"),
        (b"/other, /shop/", "/shop"),
        (b"/box/", "/box"),
        (b"/", ""),
        (b"", "/default"),
        (b"shop", "/default"),
        (b"//evil.example", "/default"),
        (b"/a%2fb", "/default"),
    ],
)
def test_a_reported_prefix_replaces_the_setting(value, prefix):
    """A malformed one does not."""
    fields = head(b"X-Forwarded-Prefix: %b\r\n" % value)
    assert forwarded(fields, "x-forwarded", TRUST, ALL, "/default").prefix == prefix
    assert forwarded(fields, "x-forwarded", TRUST, ("for",), "/default").prefix == "/default"


def test_only_named_parameters_are_taken():
    """A proxy passes on what it does not know, as a client sent it."""
    fields = b"".join(
        b"X-Forwarded-%b: %b\r\n" % pair
        for pair in (
            (b"For", b"1.1.1.1"), (b"Proto", b"https"), (b"Host", b"a:1"), (b"Port", b"2"), (b"Prefix", b"/p"),
        )
    )  # fmt: skip
    whole = Origin("1.1.1.1", "https", "a", "2", b"a:2", "/p")
    assert forwarded(head(fields), "x-forwarded", TRUST, ALL) == whole
    assert forwarded(head(fields), "x-forwarded", TRUST) == Origin("1.1.1.1", "https")
    assert forwarded(head(fields), "x-forwarded", TRUST, ()) == Origin()
    assert forwarded(head(fields), "x-forwarded", TRUST, ("port",)) == Origin(
        None, None, None, "2", b"h:2"
    )
    text = head(b'Forwarded: host=evil, for=1.1.1.1;proto=https;host="a.b:8"\r\n')
    assert forwarded(text, "forwarded", TRUST) == Origin("1.1.1.1", "https")
    assert forwarded(text, "forwarded", TRUST, ("host",)) == Origin(
        None, None, "a.b", "8", b"a.b:8"
    )


def test_the_reported_host_replaces_the_header():
    """At its place; HTTP/1.0 may have none."""
    one = head(b"X: y\r\n")
    assert with_host(one, b"a") == ((b"host", b"a"), (b"x", b"y"))
    bare = HeadParser(Bounds()).parse(b"GET / HTTP/1.0\r\nX: y\r\n\r\n")
    assert with_host(bare, b"a") == ((b"x", b"y"), (b"host", b"a"))
    assert forwarded(bare, "x-forwarded", TRUST, ALL).authority is None


@given(st.text('a," ;', max_size=40))
def test_elements_are_split_at_commas_outside_of_quotes(text):
    """As by the definition: a comma with an even number of quotes behind it."""
    assert _elements(text) == re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


@pytest.mark.parametrize("unit", [",", ',"x"', 'for="', 'for="a,b",'])
def test_a_long_forwarded_header_is_split_in_linear_time(unit):
    """In quadratic time this would take hours: a client must not hold the worker by a header."""
    fields = Fields(((b"forwarded", unit.encode() * 500_000 + b",for=1.1.1.1"),))
    assert forwarded(fields, "forwarded", TRUST).address == "1.1.1.1"


class Fields:
    """A head of which only the headers count."""

    def __init__(self, headers):
        self.headers = headers
