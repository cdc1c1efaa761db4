"""Addresses to listen on."""

import pytest

from preforkd.config.address import TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", TcpAddress("127.0.0.1", 8080)),
        ("localhost:1", TcpAddress("localhost", 1)),
        (":65535", TcpAddress(None, 65535)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("unix:/run/a b.sock", UnixAddress("/run/a b.sock")),
    ],
)
def test_addresses_are_taken_apart(text, address):
    """Every form that the documentation names."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8080", "write :8080"),
        ("localhost", "has no port"),
        ("a:0", "from 1 to 65535"),
        ("a:65536", "from 1 to 65535"),
        ("a:-1", "from 1 to 65535"),
        ("a:٣", "from 1 to 65535"),
        ("::1:80", "stands in brackets"),
        ("[::1]", "not .address.:port|has no port"),
        ("unix:run/x", "must be absolute"),
        ("unix:/" + "x" * 120, "at most 107 bytes"),
        ("/run/x", "write unix:/run/x"),
        ("http://a:80", "brackets|not the name"),
        ("", "has no port"),
    ],
)
def test_what_is_no_address_is_explained(text, words):
    """The error says what is wrong and what to write."""
    with pytest.raises(ValueError, match=words):
        parse_address(text)
