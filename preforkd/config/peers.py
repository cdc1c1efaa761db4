"""Who is meant by an entry of ``proxy.trusted``: an address, a network, or ``unix``.

Not beside the addresses to listen on, which the master reads as well: ipaddress is 0.3 MB.
"""

import ipaddress

_MAPPED = 96
"""Bits before an IPv4 address that is mapped into IPv6."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_peers(text: str) -> Network | None:
    """Return the network that a text names; None for ``unix``: everybody on Unix sockets.

    Raises ValueError that says what is wrong with it.
    """
    if text == "unix":
        return None
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; expected an address, a network or unix") from None
    # Clients with an IPv4 address are known by that, whatever the socket that they came to.
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= _MAPPED:
        return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED))
    return network
