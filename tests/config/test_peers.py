"""Peers that are trusted."""

from ipaddress import ip_network

import pytest

from preforkd.config.peers import parse_peers


def test_an_address_is_a_network_of_one():
    """Addresses, networks, and everybody on Unix sockets."""
    assert parse_peers("10.1.2.3") == ip_network("10.1.2.3/32")
    assert parse_peers("fd00::/8") == ip_network("fd00::/8")
    assert parse_peers("unix") is None


def test_ipv4_is_ipv4_also_where_it_is_mapped():
    """A client is known by its IPv4 address on every listener, and so is a network of them."""
    assert parse_peers("::ffff:10.1.2.3") == ip_network("10.1.2.3/32")
    assert parse_peers("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert parse_peers("::ffff:0:0/96") == ip_network("0.0.0.0/0")
    assert parse_peers("::/0") == ip_network("::/0")


@pytest.mark.parametrize("text", ["10.1.2.3/8", "example.org", "unix:", ""])
def test_what_is_neither_is_explained(text):
    """Names are not looked up, and a network has no bits beside its mask."""
    with pytest.raises(ValueError, match="expected an address, a network or unix"):
        parse_peers(text)
