"""Addresses to listen on."""

import pytest

from preforkd.config.address import TcpAddress, UnixAddress, as_ipv4, parse_address


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
def test_addresses_are_parsed(text, address):
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
        ("::1:80", "is written in brackets"),
        ("[::1]", "not .address.:port|has no port"),
        ("unix:run/x", "must be absolute"),
        ("unix:/" + "x" * 120, "at most 107 bytes"),
        ("/run/x", "write unix:/run/x"),
        ("http://a:80", "brackets|not the name"),
        ("", "has no port"),
    ],
)
def test_invalid_addresses(text, words):
    """The error names the fault and shows a valid address."""
    with pytest.raises(ValueError, match=words):
        parse_address(text)


def test_the_longest_path_of_a_socket():
    """107 bytes and the kernel's final NUL; bytes, not letters."""
    longest = "/" + "x" * 106
    assert parse_address(f"unix:{longest}") == UnixAddress(longest)
    for path in (longest + "x", "/" + "é" * 54):
        with pytest.raises(ValueError, match="at most 107 bytes"):
            parse_address(f"unix:{path}")
    with pytest.raises(ValueError, match="NUL"):
        parse_address("unix:/a\0b")


@pytest.mark.parametrize("port", [1, 65535])
def test_the_first_and_the_last_port(port):
    """Both may be listened on."""
    assert parse_address(f":{port}") == TcpAddress(None, port)


@pytest.mark.parametrize("text", [":000080", ":+80", ":8 0", ":", "a b:80", "[a]b:80", "a/b:80"])
def test_almost_valid_addresses(text):
    """Python would read some of these numbers."""
    with pytest.raises(ValueError, match=r"port|host|brackets"):
        parse_address(text)


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        (("::ffff:10.0.0.1", 80, 0, 0), ("10.0.0.1", 80)),
        (("::ffff:1:2", 80, 0, 0), ("::ffff:1:2", 80, 0, 0)),
        (("::1", 80, 0, 0), ("::1", 80, 0, 0)),
        (("10.0.0.1", 80), ("10.0.0.1", 80)),
    ],
)
def test_an_ipv4_client_of_an_ipv6_socket(address, plain):
    """Its address is the one that an IPv4 socket would report."""
    assert as_ipv4(address) == plain
