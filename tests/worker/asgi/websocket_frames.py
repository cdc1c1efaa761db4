"""Frames as a client of the tests sends them, and as it reads them: independent of the code under test."""

import struct

TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
MASK = b"\x12\xa5\x00\xff"


def frame(opcode, payload=b"", *, fin=True, rsv=0, mask=MASK, form=None, length=None):
    """Return a masked frame. ``form``: 7, 16 or 64 bits of length; None: the shortest. ``length``: announced."""
    size = len(payload) if length is None else length
    if form is None:
        form = 7 if size < 126 else 16 if size < 1 << 16 else 64
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask else 0
    head = {
        7: lambda: struct.pack("!BB", first, bit | size),
        16: lambda: struct.pack("!BBH", first, bit | 126, size),
        64: lambda: struct.pack("!BBQ", first, bit | 127, size),
    }[form]()
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def close_frame(code=1000, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


def parsed(data):
    """Return the server's frames as pairs of first byte and payload; each must be whole and not masked."""
    found = []
    while data:
        first, size, start = data[0], data[1], 2
        assert size < 0x80, "a frame of the server is masked"
        if size == 126:
            size, start = struct.unpack("!H", data[2:4])[0], 4
        elif size == 127:
            size, start = struct.unpack("!Q", data[2:10])[0], 10
        assert len(data) >= start + size, "a frame is incomplete"
        found.append((first, data[start : start + size]))
        data = data[start + size :]
    return found


def codes(data):
    """Return the codes of the server's Close frames."""
    closes = [payload for first, payload in parsed(data) if first == 0x80 | CLOSE]
    return [struct.unpack("!H", one[:2])[0] if one else None for one in closes]
