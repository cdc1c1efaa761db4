"""The client as a proxy reports it by a PROXY header, which precedes all other bytes of a connection.

HAProxy's proxy-protocol.txt, versions 1 and 2. It is believed from trusted peers only: any client can send
these bytes.
"""

import ipaddress
import re
import struct

from preforkd.config.peers import unmapped

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|TCP[46] ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
_V1_MOST = 107
_V2_MOST = 16 + 2048


class ProxyHeaderError(Exception):
    """A trusted peer did not send a valid PROXY header."""


class ProxyHeader:
    """A parser of a PROXY header that never consumes a byte behind it.

    `peek` gets the bytes that wait in the socket and returns how many to receive; `take` gets those.
    ``source``: address and port of the client; None: the connection is the proxy's own.
    """

    def __init__(self) -> None:
        self.done = False
        self.source: tuple[str, str] | None = None
        self._data = b""

    def peek(self, waiting: bytes) -> int:
        """Return how many of the waiting bytes belong to the header. Raises ProxyHeaderError."""
        data = self._data + waiting
        if len(data) < len(_SIGNATURE):
            if not (_SIGNATURE.startswith(data) or b"PROXY "[: len(data)] == data[:6]):
                raise ProxyHeaderError("no PROXY header")
            return len(waiting)
        if data.startswith(_SIGNATURE):
            if len(data) < 16:
                return len(waiting)
            whole = 16 + int.from_bytes(data[14:16])
            if whole > _V2_MOST:
                raise ProxyHeaderError("the PROXY header is too large")
        else:
            end = data.find(b"\n", 0, _V1_MOST)
            if not data.startswith(b"PROXY ") or (end < 0 and len(data) >= _V1_MOST):
                raise ProxyHeaderError("no PROXY header")
            whole = end + 1 if end >= 0 else len(data)
        return min(len(waiting), whole - len(self._data))

    def take(self, data: bytes) -> None:
        """Parse the bytes that `peek` counted. Raises ProxyHeaderError."""
        self._data += data
        whole = self._data
        if whole.startswith(_SIGNATURE):
            if len(whole) >= 16 and len(whole) == 16 + int.from_bytes(whole[14:16]):
                self._read_v2(whole)
        elif whole.startswith(b"PROXY ") and whole.endswith(b"\n"):
            self._read_v1(whole)

    def _read_v1(self, line: bytes) -> None:
        match = _V1.fullmatch(line)
        if match is None:
            raise ProxyHeaderError("the PROXY header is malformed")
        self.done = True
        if match[1] is not None:
            version = 4 if line.startswith(b"PROXY TCP4") else 6
            try:
                address = ipaddress.ip_address(match[1].decode())
                other = ipaddress.ip_address(match[2].decode())
            except ValueError:
                raise ProxyHeaderError("the PROXY header is malformed") from None
            if {address.version, other.version} != {version} or int(match[3]) > 65535:
                raise ProxyHeaderError("the PROXY header is malformed")
            self.source = str(unmapped(address)), match[3].decode()

    def _read_v2(self, data: bytes) -> None:
        if data[12] >> 4 != 2 or data[12] & 15 > 1:
            raise ProxyHeaderError("the PROXY header has an unknown version or command")
        self.done = True
        if data[12] & 15 == 0:
            return  # LOCAL: the proxy's own health check
        family, body = data[13] >> 4, data[16:]
        size = {1: 4, 2: 16}.get(family)
        if size is None:
            return  # unspecified, or a Unix socket
        if len(body) < 2 * size + 4:
            raise ProxyHeaderError("the PROXY header is malformed")
        (port,) = struct.unpack_from("!H", body, 2 * size)
        self.source = str(unmapped(ipaddress.ip_address(body[:size]))), str(port)
