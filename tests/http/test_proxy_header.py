"""The PROXY protocol."""

import struct

import pytest

from preforkd.http.proxy_header import ProxyHeader, ProxyHeaderError


def take(data, size):
    """Return the source, and what was left of the data."""
    header = ProxyHeader()
    waiting = b""
    for at in range(0, len(data), size):
        waiting += data[at : at + size]
        while waiting and not header.done:
            count = header.peek(waiting)
            header.take(waiting[:count])
            waiting = waiting[count:]
    return header.done, header.source, waiting


V2 = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, body):
    return V2 + bytes([command, family]) + struct.pack("!H", len(body)) + body


FOUR = bytes([1, 2, 3, 4, 5, 6, 7, 8]) + struct.pack("!HH", 1000, 80)

MAPPED = bytes(10) + b"\xff\xff\1\2\3\4"


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("data", "source"),
    [
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n", ("1.2.3.4", "1000")),
        (b"PROXY TCP6 2001:db8::1 ::1 1000 80\r\n", ("2001:db8::1", "1000")),
        (b"PROXY TCP6 ::ffff:1.2.3.4 ::ffff:5.6.7.8 1000 80\r\n", ("1.2.3.4", "1000")),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 65535 65535\r\n", ("1.2.3.4", "65535")),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
        (v2(0x20, 0x00, bytes(2048)), None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        (v2(0x21, 0x11, FOUR), ("1.2.3.4", "1000")),
        (v2(0x21, 0x11, FOUR + b"\x04\x00\x05hello"), ("1.2.3.4", "1000")),
        (v2(0x21, 0x21, bytes(15) + b"\1" + bytes(16) + FOUR[8:]), ("::1", "1000")),
        (v2(0x21, 0x21, MAPPED + bytes(16) + FOUR[8:]), ("1.2.3.4", "1000")),
        (v2(0x20, 0x00, b""), None),
        (v2(0x21, 0x00, b"abc"), None),
        (v2(0x21, 0x31, bytes(216)), None),
    ],
)
def test_a_header_is_taken_and_nothing_behind_it(data, source, size):
    """Whatever the pieces."""
    assert take(data, size)[:2] == (True, source)
    done, found, rest = take(data + b"GET / HTTP/1.1\r\n", 1 << 20)
    assert (done, found, rest) == (True, source, b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1000\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\n",
        b"PROXY TCP4 ::1 ::1 1000 80\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1000 80\r\n",
        b"PROXY TCP4 1.2.3 5.6.7.8 1000 80\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        v2(0x20, 0x00, bytes(2049)),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80 x\r\n",
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 1000 80\r\n",
        b"proxy TCP4 1.2.3.4 5.6.7.8 1000 80\r\n",
        b"PROXY " + b"x" * 200,
        v2(0x11, 0x11, FOUR),
        v2(0x22, 0x11, FOUR),
        v2(0x21, 0x11, FOUR[:8]),
        v2(0x21, 0x11, bytes(5000)),
        V2[:6] + b"xxxxxxxxxxxx",
    ],
)
def test_anything_else_is_refused(data, size):
    """The connection ends: nobody knows whose bytes would follow."""
    with pytest.raises(ProxyHeaderError):
        take(data, size)
