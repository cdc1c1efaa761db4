"""Who is meant by an entry of ``proxy.trusted``: an address, a network, or ``unix``.

Not beside the addresses to listen on, which the master reads as well: ipaddress is 0.3 MB.
"""

import ipaddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_peers(text: str) -> Network | None:
    """Return the network that a text names; None for ``unix``: everybody on Unix sockets.

    Raises ValueError that says what is wrong with it.
    """
    if text == "unix":
        return None
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; expected an address, a network or unix") from None
