"""The frames of WebSockets, by the sections of RFC 6455 and RFC 7692; each input whole and byte by byte."""

import struct
import tracemalloc
import zlib

import pytest

from tests.worker.asgi.websocket_frames import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    parsed,
)

pytest.importorskip("websockets")

from preforkd.worker.asgi import frames
from preforkd.worker.asgi.frames import FrameCodec, FrameError

MAX = 1 << 20


def taken(data, step=1 << 30, *, max_size=MAX, codec=None, deflate=None):
    """Return the messages of this input, and the code and reason of the failure or the client's Close."""
    codec = codec or FrameCodec(max_size, deflate)
    messages = []
    try:
        for at in range(0, len(data), step):
            codec.receive(data[at : at + step])
            while (message := codec.next_message()) is not None:
                messages.append(message)
    except FrameError as error:
        return messages, error.code
    closed = codec.closed
    return messages, (closed.code, closed.reason) if closed is not None else None


@pytest.fixture(params=[1 << 30, 1, 3], ids=["whole", "bytes", "threes"])
def step(request):
    return request.param


# --- 5.2: the base framing -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 127, 128, 65535, 65536, 70000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_each_form_of_length(size, opcode):
    """7, 16 and 64 bits of length, and both sides of each bound."""
    payload = bytes(0x20 + at % 0x5F for at in range(size))
    expected = payload.decode() if opcode == TEXT else payload
    assert taken(frame(opcode, payload)) == ([expected], None)
    assert taken(frame(opcode, payload), 997) == ([expected], None)


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"])
def test_each_mask_is_removed(mask, step):
    """5.3."""
    data = frame(BINARY, b"seven..", mask=mask) + frame(TEXT, b"x", mask=mask)
    assert taken(data, step) == ([b"seven..", "x"], None)


def test_many_messages_in_one_segment(step):
    data = b"".join(frame(TEXT, b"%d" % number) for number in range(50))
    assert taken(data, step) == ([str(number) for number in range(50)], None)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONT, CLOSE, PING, PONG])
def test_a_frame_that_is_not_masked_fails(opcode, step):
    """5.1: the server closes the connection."""
    assert taken(frame(opcode, b"", mask=b""), step) == ([], 1002)


@pytest.mark.parametrize("opcode", [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_a_reserved_opcode_fails(opcode, step):
    assert taken(frame(TEXT, b"a") + frame(opcode, b"b"), step) == (["a"], 1002)


@pytest.mark.parametrize("rsv", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONT, CLOSE, PING, PONG])
def test_a_reserved_bit_fails_without_an_extension(rsv, opcode):
    assert taken(frame(opcode, b"ab", rsv=rsv)) == ([], 1002)


@pytest.mark.parametrize(
    ("size", "form"), [(0, 16), (125, 16), (0, 64), (125, 64), (126, 64), (65535, 64)]
)
def test_a_length_that_is_not_in_its_shortest_form_fails(size, form):
    """5.2: the minimal number of bytes must be used."""
    assert taken(frame(BINARY, bytes(size), form=form)) == ([], 1002)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
def test_a_length_with_its_highest_bit_fails(length):
    """5.2: the most significant bit must be 0."""
    assert taken(frame(BINARY, b"", form=64, length=length)) == ([], 1002)


@pytest.mark.parametrize("length", [MAX + 1, 1 << 32, (1 << 63) - 1])
def test_a_length_above_the_largest_size_fails_at_once(length):
    """10.4: before any of the payload has arrived."""
    assert taken(frame(BINARY, b"", form=64, length=length)[:10] + b"mask") == ([], 1009)


def test_an_unmasked_frame_fails_before_its_payload():
    """Two bytes are enough to know."""
    assert taken(b"\x81\x05") == ([], 1002)
    assert taken(b"\x83\x85") == ([], 1002)


def test_an_incomplete_frame_is_no_message():
    data = frame(BINARY, bytes(70000))
    for end in (1, 2, 3, 5, 9, 10, 13, 14, 15, 69999, len(data) - 1):
        assert taken(data[:end]) == ([], None)


# --- 5.4: fragmentation --------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    "parts",
    [(b"ab", b"cd"), (b"", b""), (b"", b"abc", b""), (b"a",) * 100, (b"x" * 200, b"y" * 70000)],
)
def test_fragments_are_one_message(opcode, parts, step):
    data = frame(opcode, parts[0], fin=False)
    data += b"".join(frame(CONT, part, fin=False) for part in parts[1:-1])
    data += frame(CONT, parts[-1])
    whole = b"".join(parts)
    expected = whole.decode() if opcode == TEXT else whole
    assert taken(data + frame(TEXT, b"next"), step) == ([expected, "next"], None)


@pytest.mark.parametrize("control", [PING, PONG])
def test_control_frames_stand_between_fragments(control, step):
    """5.4: they are answered at once, and are no part of the message."""
    codec = FrameCodec(MAX, None)
    data = frame(TEXT, b"a", fin=False) + frame(control, b"now") + frame(CONT, b"b")
    assert taken(data, step, codec=codec) == (["ab"], None)
    pongs = [(0x80 | PONG, b"now")] if control == PING else []
    assert parsed(b"".join(codec.replies)) == pongs


def test_a_close_between_fragments_is_a_close(step):
    """5.4 and 5.5.1: control frames may stand there, and a Close is one."""
    data = frame(TEXT, b"a", fin=False) + close_frame(1001, b"bye") + frame(CONT, b"b")
    assert taken(data, step) == ([], (1001, "bye"))


@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_without_a_beginning_fails(fin, step):
    assert taken(frame(CONT, b"a", fin=fin), step) == ([], 1002)
    assert taken(frame(TEXT, b"a") + frame(CONT, b"b", fin=fin), step) == (["a"], 1002)


def test_a_continuation_behind_a_complete_message_fails(step):
    data = frame(TEXT, b"a", fin=False) + frame(CONT, b"b") + frame(CONT, b"c")
    assert taken(data, step) == (["ab"], 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_a_message_within_another_fails(opcode, fin, step):
    data = frame(BINARY, b"a", fin=False) + frame(opcode, b"b", fin=fin)
    assert taken(data, step) == ([], 1002)


# --- 5.5: control frames -------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"hello", bytes(125), b"\xff\xfe"])
def test_a_ping_is_answered_with_its_payload(payload, step):
    """5.5.2 and 5.5.3."""
    codec = FrameCodec(MAX, None)
    assert taken(frame(PING, payload), step, codec=codec) == ([], None)
    assert parsed(b"".join(codec.replies)) == [(0x80 | PONG, payload)]


def test_pings_are_answered_in_their_order(step):
    codec = FrameCodec(MAX, None)
    data = b"".join(frame(PING, b"%d" % number) for number in range(10))
    taken(data, step, codec=codec)
    assert [payload for _, payload in parsed(b"".join(codec.replies))] == [
        b"%d" % number for number in range(10)
    ]


def test_a_pong_that_was_not_asked_for_is_ignored(step):
    """5.5.3."""
    codec = FrameCodec(MAX, None)
    assert taken(frame(PONG, b"x") + frame(TEXT, b"a"), step, codec=codec) == (["a"], None)
    assert codec.replies == []


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("size", [126, 127, 65536])
def test_a_long_control_frame_fails(opcode, size):
    """5.5: 125 bytes at most; refused before its payload."""
    assert taken(frame(opcode, bytes(size))[:2]) == ([], 1002)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame_fails(opcode, step):
    assert taken(frame(opcode, b"ab", fin=False), step) == ([], 1002)


def test_control_frames_do_not_count_as_messages(step):
    """The largest size of a message does not limit them, also while a message is incomplete."""
    codec = FrameCodec(2, None)
    data = frame(BINARY, b"ab", fin=False) + frame(PING, bytes(100)) + close_frame(1000, b"longer")
    assert taken(data, step, codec=codec) == ([], (1000, "longer"))
    assert len(codec.replies) == 1


# --- 8.1: UTF-8 ----------------------------------------------------------------------------------

VALID = [
    "κόσμε",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "\x00",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\ufeff",
    "\ufffd",
    "\ufffe",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
]
INVALID = [
    b"\x80",  # a continuation alone
    b"\xbf",
    b"\xc0\xaf",  # overlong forms
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",  # five and six bytes
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf4\x90\x80\x80",  # above U+10FFFF
    b"\xed\xa0\x80",  # surrogates
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xfe",
    b"\xff",
    b"\xce",  # truncated
    b"\xe1\xbf",
    b"\xf0\x90\x80",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"ok\xc3(",
]


@pytest.mark.parametrize("text", VALID)
def test_valid_text_in_one_frame_and_split_anywhere(text, step):
    data = text.encode()
    assert taken(frame(TEXT, data), step) == ([text], None)
    for at in range(len(data) + 1):
        split = frame(TEXT, data[:at], fin=False) + frame(CONT, data[at:])
        assert taken(split, step) == ([text], None)


@pytest.mark.parametrize("data", INVALID)
def test_invalid_text_fails(data, step):
    """8.1: in one frame, behind valid text, and split anywhere."""
    assert taken(frame(TEXT, data), step) == ([], 1007)
    assert taken(frame(TEXT, b"fine") + frame(TEXT, b"ab" + data), step) == (["fine"], 1007)
    for at in range(len(data) + 1):
        split = frame(TEXT, data[:at], fin=False) + frame(CONT, data[at:])
        assert taken(split, step) == ([], 1007)


def test_invalid_text_fails_in_the_fragment_that_has_it():
    """The message need not be complete."""
    assert taken(frame(TEXT, b"a\xff", fin=False)) == ([], 1007)
    assert taken(frame(TEXT, b"\xf4", fin=False) + frame(CONT, b"\x90", fin=False)) == ([], 1007)


def test_binary_data_is_not_checked(step):
    data = b"".join(INVALID)
    assert taken(frame(BINARY, data), step) == ([data], None)
    split = frame(BINARY, data[:5], fin=False) + frame(CONT, data[5:])
    assert taken(split, step) == ([data], None)


def test_an_unfinished_character_does_not_reach_into_the_next_message(step):
    """Each message is checked on its own."""
    data = frame(TEXT, b"a", fin=False) + frame(CONT, b"b") + frame(TEXT, b"\xcf\x83"[1:])
    assert taken(data, step) == (["ab"], 1007)


# --- 5.5.1 and 7: Close --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        1000,
        1001,
        1002,
        1003,
        1007,
        1008,
        1009,
        1010,
        1011,
        1012,
        1013,
        1014,
        3000,
        3999,
        4000,
        4999,
    ],
)
def test_valid_codes(code, step):
    """7.4.1, 7.4.2, and the registry of IANA."""
    assert taken(close_frame(code), step) == ([], (code, ""))
    assert frames.close(code, "") == b"\x88\x02" + struct.pack("!H", code)


@pytest.mark.parametrize(
    "code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
)
def test_invalid_codes(code, step):
    """7.4: they must not be sent; ours neither."""
    assert taken(close_frame(code), step) == ([], 1002)
    with pytest.raises(ValueError, match="not a code"):
        frames.close(code, "why")


def test_a_close_without_a_code(step):
    """7.1.5: it counts as 1005, and is answered without a code."""
    assert taken(frame(CLOSE), step) == ([], (1005, ""))
    assert frames.close(1005, "") == b"\x88\x00"


def test_a_close_of_one_byte_fails(step):
    assert taken(frame(CLOSE, b"\x03"), step) == ([], 1002)


@pytest.mark.parametrize("reason", ["bye", "κόσμε", "x" * 123])
def test_the_reason_of_a_close(reason, step):
    assert taken(close_frame(1000, reason.encode()), step) == ([], (1000, reason))
    assert frames.close(1000, reason)[4:] == reason.encode()


@pytest.mark.parametrize("reason", [b"\xff", b"ok\xc3(", b"\xed\xa0\x80"])
def test_a_reason_that_is_not_utf_8_fails(reason, step):
    """5.5.1 and 8.1."""
    assert taken(close_frame(1000, reason), step) == ([], 1007)


def test_a_reason_that_is_too_long_is_not_sent():
    with pytest.raises(ValueError, match="123 bytes"):
        frames.close(1000, "κ" * 62)


def test_nothing_behind_a_close_is_read(step):
    """5.5.1: no data follows it; garbage there is no error."""
    codec = FrameCodec(MAX, None)
    data = close_frame(1000) + frame(TEXT, b"late") + b"\xff\xff garbage"
    assert taken(data, step, codec=codec) == ([], (1000, ""))
    assert codec.unread


def test_unread_is_what_was_not_understood():
    codec = FrameCodec(MAX, None)
    assert not codec.unread
    codec.receive(frame(TEXT, b"a") + b"\x81")
    assert codec.unread
    assert codec.next_message() == "a"
    assert codec.unread
    codec.receive(frame(TEXT, b"b")[1:])
    assert codec.next_message() == "b"
    assert not codec.unread


# --- 10.4: sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_largest_message_is_taken_and_a_larger_one_fails(opcode, step):
    expected = "x" * 200 if opcode == TEXT else b"x" * 200
    assert taken(frame(opcode, b"x" * 200), step, max_size=200) == ([expected], None)
    assert taken(frame(opcode, b"x" * 201), step, max_size=200) == ([], 1009)


def test_fragments_together_are_bounded(step):
    """Each of them is small enough; the last one is one byte too long."""
    data = frame(BINARY, bytes(100), fin=False) + frame(CONT, bytes(100), fin=False)
    assert taken(data + frame(CONT, b""), step, max_size=200) == ([bytes(200)], None)
    assert taken(data + frame(CONT, b"x"), step, max_size=200) == ([], 1009)


def test_a_message_does_not_count_for_the_next(step):
    data = frame(BINARY, bytes(150), fin=False) + frame(CONT, bytes(50))
    assert taken(data * 3, step, max_size=200) == ([bytes(200)] * 3, None)


def test_a_large_message_in_many_small_segments_is_not_copied_for_each():
    """The buffer is one object that grows in place: a copy for each segment would take minutes."""
    codec = FrameCodec(1 << 23, None)
    payload = bytes(1 << 20)
    data = frame(BINARY, payload, mask=b"\0\0\0\0")
    codec.receive(data[:64])
    assert codec.next_message() is None
    codec.receive(data[64:128])
    buffer = codec._buffer
    for at in range(128, len(data), 64):
        assert codec.next_message() is None
        codec.receive(data[at : at + 64])
        assert codec._buffer is buffer
    assert codec.next_message() == payload


def test_nothing_of_a_message_is_kept():
    """Ten thousand idle connections must not hold the last message of each."""
    codec = FrameCodec(MAX, None)
    data = frame(BINARY, bytes(100_000))
    assert taken(data, 4096, codec=codec) == ([bytes(100_000)], None)
    assert codec._buffer == b""
    assert (
        taken(frame(BINARY, bytes(99_999), fin=False) + frame(CONT, b"x"), codec=codec)[1] is None
    )
    assert (codec._buffer, codec._message) == (b"", b"")


# --- RFC 7692: permessage-deflate ----------------------------------------------------------------


NO_CONTEXT = ("server_no_context_takeover", "client_no_context_takeover")


def negotiated(**parameters):
    offered = [(name, None if value is True else value) for name, value in parameters.items()]
    return frames.negotiate([("permessage-deflate", offered)])


class Compressor:
    """The client's side: messages compressed with or without context."""

    def __init__(self, bits=15, *, takeover=True) -> None:
        self.bits, self.takeover = bits, takeover
        self.reset()

    def reset(self):
        self.deflater = zlib.compressobj(wbits=-self.bits)
        self.inflater = zlib.decompressobj(wbits=-self.bits)

    def __call__(self, data):
        if not self.takeover:
            self.reset()
        text = self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        assert text.endswith(b"\0\0\xff\xff")
        return text[:-4]

    def inflated(self, payload):
        if not self.takeover:
            self.reset()
        return self.inflater.decompress(payload + b"\0\0\xff\xff")


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ({}, "permessage-deflate; server_max_window_bits=12"),
        (
            {"client_max_window_bits": True},
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            {"client_max_window_bits": "10", "server_max_window_bits": "9"},
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
        ),
        (
            dict.fromkeys(NO_CONTEXT, True),
            f"permessage-deflate; {NO_CONTEXT[0]}; {NO_CONTEXT[1]}; server_max_window_bits=12",
        ),
    ],
)
def test_what_is_negotiated(parameters, answer):
    """RFC 7692, 7.1: windows of 12 bits at most where the client allows it."""
    text, codec = negotiated(**parameters)
    assert text == answer
    assert codec is not None


@pytest.mark.parametrize(
    "parameters",
    [
        {"unknown": True},
        {"server_max_window_bits": "16"},
        {"server_max_window_bits": "7"},
        {"server_max_window_bits": True},
        {"server_max_window_bits": "012"},
        {"client_max_window_bits": "x"},
        {"server_no_context_takeover": "1"},
        {"client_no_context_takeover": "yes"},
    ],
)
def test_an_offer_that_is_not_acceptable_is_declined(parameters):
    """RFC 7692, 7.1: the next offer is taken, or none."""
    assert negotiated(**parameters) == ("", None)
    offers = [("permessage-deflate", list(parameters.items())), ("permessage-deflate", [])]
    assert frames.negotiate(offers)[0] == "permessage-deflate; server_max_window_bits=12"


def test_other_extensions_are_declined():
    assert frames.negotiate([("x-webkit-deflate-frame", [])]) == ("", None)
    assert frames.negotiate([]) == ("", None)


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("bits", [9, 10, 12, 15])
def test_compressed_messages_both_ways(takeover, bits, step):
    """7.2: windows of each size, with the context of earlier messages and without."""
    more = (
        {} if takeover else {"client_no_context_takeover": True, "server_no_context_takeover": True}
    )
    window = {} if bits == 15 else {"client_max_window_bits": str(bits)}
    _, deflate = negotiated(**window, **more)
    client = Compressor(bits, takeover=takeover)
    texts = ["one " * 500, "one " * 500, "κόσμε", ""]
    data = b"".join(frame(TEXT, client(text.encode()), rsv=4) for text in texts)
    codec = FrameCodec(MAX, deflate)
    assert taken(data, step, codec=codec) == (texts, None)
    reader = Compressor(12, takeover=takeover)
    for text in texts:
        [(first, payload)] = parsed(codec.text(text))
        assert first == 0xC1
        assert reader.inflated(payload).decode() == text
    [(first, payload)] = parsed(codec.binary(b"\xff" * 300))
    assert first == 0xC2
    assert reader.inflated(payload) == b"\xff" * 300


def test_the_context_is_taken_over():
    """7.2.3.2: the second of two equal messages is smaller."""
    _, deflate = negotiated()
    codec = FrameCodec(MAX, deflate)
    text = "".join(chr(0x21 + at % 90) for at in range(0, 3000, 7))
    assert len(codec.text(text)) > 4 * len(codec.text(text))


def test_a_message_may_be_uncompressed_though_compression_was_negotiated(step):
    """6.1: the bit RSV1 decides for each message."""
    _, deflate = negotiated()
    client = Compressor()
    data = frame(TEXT, b"plain") + frame(TEXT, client(b"packed"), rsv=4) + frame(BINARY, b"plain")
    assert taken(data, step, deflate=deflate) == (["plain", "packed", b"plain"], None)


def test_a_fragmented_compressed_message(step):
    """6.2: it is compressed as a whole; the bit is set in the first fragment only."""
    _, deflate = negotiated()
    text = "κόσμε" * 100
    payload = Compressor()(text.encode())
    data = frame(TEXT, payload[:3], fin=False, rsv=4) + frame(PING, b"x")
    data += frame(CONT, payload[3:10], fin=False) + frame(CONT, payload[10:])
    assert taken(data, step, deflate=deflate) == ([text], None)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_compressed_control_frame_fails(opcode):
    """6: the bit must not be set there."""
    _, deflate = negotiated()
    assert taken(frame(opcode, b"ab", rsv=4), deflate=deflate) == ([], 1002)


@pytest.mark.parametrize("compressed", [True, False])
def test_the_bit_on_a_continuation_fails(compressed):
    _, deflate = negotiated()
    data = frame(TEXT, b"", fin=False, rsv=4 if compressed else 0) + frame(CONT, b"", rsv=4)
    assert taken(data, deflate=deflate) == ([], 1002)


@pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
def test_the_other_bits_fail_with_compression_too(rsv):
    _, deflate = negotiated()
    assert taken(frame(TEXT, b"", rsv=rsv), deflate=deflate) == ([], 1002)


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"not deflate", b"\x07"])
def test_corrupt_compressed_data_fails(data, step):
    _, deflate = negotiated()
    assert taken(frame(BINARY, data, rsv=4), step, deflate=deflate) == ([], 1007)


def test_compressed_text_is_checked_for_utf_8(step):
    _, deflate = negotiated()
    data = frame(TEXT, Compressor()(b"a\xff"), rsv=4)
    assert taken(data, step, deflate=deflate) == ([], 1007)


@pytest.mark.parametrize("size", [999, 1000])
def test_the_size_is_that_of_the_uncompressed_message(size):
    _, deflate = negotiated()
    data = frame(BINARY, Compressor()(bytes(size)), rsv=4)
    assert taken(data, max_size=1000, deflate=deflate) == ([bytes(size)], None)


@pytest.mark.parametrize("size", [1001, 5000, 50_000_000])
@pytest.mark.parametrize("fragments", [1, 2, 5])
def test_a_bomb_fails_before_it_is_inflated(size, fragments):
    """The message is too big by one byte, or by much."""
    _, deflate = negotiated()
    payload = Compressor()(bytes(size))
    cut = max(1, len(payload) // fragments)
    parts = [payload[at * cut : (at + 1) * cut] for at in range(fragments - 1)]
    parts.append(payload[(fragments - 1) * cut :])
    data = b"".join(
        frame(BINARY if not at else CONT, part, fin=at == len(parts) - 1, rsv=0 if at else 4)
        for at, part in enumerate(parts)
    )
    assert taken(data, max_size=60_000 if size > 60_000 else 1000, deflate=deflate) == ([], 1009)


def test_a_bomb_is_not_inflated_beyond_the_largest_size():
    """Its 100 MB never exist."""
    _, deflate = negotiated()
    data = frame(BINARY, Compressor()(bytes(100_000_000)), rsv=4)
    tracemalloc.start()
    try:
        assert taken(data, max_size=len(data), deflate=deflate) == ([], 1009)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_bomb_behind_a_full_message_fails():
    """A fragment that fills the message exactly leaves no room, which must not mean no limit."""
    _, deflate = negotiated()
    client = Compressor()
    first = client.deflater.compress(bytes(1000)) + client.deflater.flush(zlib.Z_SYNC_FLUSH)
    rest = client(bytes(10_000_000))
    data = frame(BINARY, first, fin=False, rsv=4)
    codec = FrameCodec(1000, deflate)
    assert taken(data, codec=codec) == ([], None)
    assert taken(frame(CONT, rest[:0], fin=False) + frame(CONT, rest), codec=codec) == ([], 1009)


@pytest.mark.parametrize("takeover", [True, False])
def test_a_final_block_does_not_end_the_compression(takeover, step):
    """RFC 7692, 7.2.3.4: the example with BFINAL, twice, and a message of the usual kind."""
    more = {} if takeover else {"client_no_context_takeover": True}
    _, deflate = negotiated(**more)
    final = bytes.fromhex("f348cdc9c90700") + b"\0"
    data = frame(TEXT, final, rsv=4) * 2 + frame(TEXT, Compressor()(b"usual"), rsv=4)
    assert taken(data, step, deflate=deflate) == (["Hello", "Hello", "usual"], None)


def test_blocks_behind_a_final_block_are_part_of_the_message(step):
    """Each stream that ends is followed by another, within a message too; its size counts."""
    _, deflate = negotiated()
    data = frame(TEXT, first_stream() + Compressor()(b"two"), rsv=4)
    assert taken(data, step, deflate=deflate, max_size=20) == (["one, two"], None)
    _, deflate = negotiated()
    data = frame(BINARY, first_stream() + Compressor()(bytes(1_000_000)), rsv=4)
    assert taken(data, max_size=len(data), deflate=deflate) == ([], 1009)


def first_stream():
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(b"one, ") + deflater.flush(zlib.Z_FINISH)


@pytest.mark.parametrize(
    "payload",
    [
        "f248cdc9c90700",  # 7.2.3.1: one compressed block
        "000500faff48656c6c6f00",  # 7.2.3.3: a block without compression
        "f248050000 00ffffcac9c90700".replace(" ", ""),  # 7.2.3.5: two blocks
    ],
)
def test_the_examples_of_the_standard(payload, step):
    _, deflate = negotiated()
    data = frame(TEXT, bytes.fromhex(payload), rsv=4)
    assert taken(data, step, deflate=deflate) == (["Hello"], None)


# --- output --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_what_is_sent_has_the_shortest_form_of_length(size):
    codec = FrameCodec(MAX, None)
    text = "x" * size
    assert codec.text(text) == frame(TEXT, text.encode(), mask=b"")
    assert codec.binary(text.encode()) == frame(BINARY, text.encode(), mask=b"")


def test_a_ping_of_ours():
    assert frames.ping() == b"\x89\x00"


def test_a_lone_surrogate_is_not_sent():
    with pytest.raises(UnicodeEncodeError):
        FrameCodec(MAX, None).text("\ud800")


def test_the_mask_of_the_tests_is_not_trivial():
    """A server that did not unmask would fail most tests above."""
    assert frame(TEXT, b"abcd")[6:] != b"abcd"
    assert 0 in MASK
    assert len(set(MASK)) == 4
