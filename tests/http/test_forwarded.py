"""Forwarded headers."""

import re

import pytest
from hypothesis import given, strategies as st

from preforkd.http.forwarded import (
    Origin,
    Trust,
    _elements,
    forwarded,
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
