"""The entries of proxy.trusted."""

from ipaddress import ip_network

import pytest

from preforkd.config.peers import parse_peers


def test_an_address_is_a_network_of_one():
    """Addresses, networks, and all peers on Unix sockets."""
    assert parse_peers("10.1.2.3") == ip_network("10.1.2.3/32")
    assert parse_peers("fd00::/8") == ip_network("fd00::/8")
    assert parse_peers("unix") is None


def test_ipv4_mapped_addresses_are_ipv4():
    """Addresses and networks, so that one entry matches on every listener."""
    assert parse_peers("::ffff:10.1.2.3") == ip_network("10.1.2.3/32")
    assert parse_peers("::ffff:10.0.0.0/104") == ip_network("10.0.0.0/8")
    assert parse_peers("::ffff:0:0/96") == ip_network("0.0.0.0/0")
    assert parse_peers("::/0") == ip_network("::/0")


@pytest.mark.parametrize("text", ["10.1.2.3/8", "example.org", "unix:", ""])
def test_invalid_peers(text):
    """Host names are not resolved, and a network has no bits outside its mask."""
    with pytest.raises(ValueError, match="expected an address, a network or unix"):
        parse_peers(text)
