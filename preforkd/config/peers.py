"""The entries of ``proxy.trusted``: an address, a network, or ``unix``.

Not in `preforkd.config.address`, which the master imports: ipaddress takes 0.3 MB.
"""

import ipaddress

_MAPPED = 96
"""Bits of the prefix of an IPv4-mapped IPv6 address. RFC 4291, section 2.5.5.2"""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_peers(text: str) -> Network | None:
    """Return the network that a text names; None for ``unix``: all peers on Unix sockets.

    Raises ValueError with a message for the administrator.
    """
    if text == "unix":
        return None
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; expected an address, a network or unix") from None
    # The address of an IPv4 client is compared as IPv4, whichever socket accepted it.
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= _MAPPED:
        return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED))
    return network


def unmapped(address: Address) -> Address:
    """Return the IPv4 address for one that is mapped into IPv6, else the address."""
    return getattr(address, "ipv4_mapped", None) or address
