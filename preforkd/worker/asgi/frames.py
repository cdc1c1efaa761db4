"""The frames of a WebSocket, RFC 6455, sections 5 to 8, without I/O: bytes in, messages out, and the reverse.

The library ``websockets`` does what costs most or is hardest: masking (in C), permessage-deflate (RFC 7692) with
its negotiation, the codes of a Close.  Debian 12 (10.4) and 13 (15.0) have it.  CPU time of a text in / a
text out, in µs (CPython 3.11, the best of 12 interleaved rounds):

                                     64 bytes       1 MiB
    websockets, its ``Protocol``     5.1 / 1.4      436 / 108
    wsproto                          15.8 / 3.4     2,587 / 822
    this module                      1.5 / 0.4      207 / 79

``wsproto`` masks in Python and is no choice. The ``Protocol`` of websockets would take most of the time of an
echo, and differs from what a server should do: a Close between fragments fails the connection with 1002
(section 5.4 allows it), the largest size of a message applies to control frames as well, lengths that are not
in their shortest form pass, text is not checked for UTF-8.

A message that is one whole frame, by far the most frequent, is taken from the input without any state.
"""

import codecs
import zlib
from collections.abc import Sequence
from typing import Any

from websockets.exceptions import NegotiationError, PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Close, Frame, Opcode, apply_mask

from preforkd.http.upgrade import Parameters

NORMAL, PROTOCOL_ERROR, NO_CODE, ABNORMAL, INVALID_DATA = 1000, 1002, 1005, 1006, 1007
TOO_BIG, INTERNAL_ERROR, RESTART = 1009, 1011, 1012

_CONT, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RSV1, _RESERVED, _OPCODE = 0x80, 0x40, 0x30, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_WHOLE = frozenset((_FIN | _TEXT, _FIN | _BINARY))
"""First bytes of frames that are a message: the last fragment, not compressed."""
_MAX_CONTROL = 125
_HEADER = 2
_DEFLATE = ServerPerMessageDeflateFactory(
    # The library's own defaults for servers: about 64 KiB for a connection instead of 300.
    server_max_window_bits=12,
    client_max_window_bits=12,
    compress_settings={"memLevel": 5},
)


class FrameError(Exception):
    """The client broke the protocol; the connection fails with this code (section 7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def negotiate(offered: Sequence[tuple[str, Parameters]]) -> tuple[str, PerMessageDeflate | None]:
    """Return the accepted extension, rendered for the answer, and its codec; empty and None: none.

    The first acceptable offer of permessage-deflate is taken, RFC 7692, section 5.1.
    """
    for name, parameters in offered:
        if name != _DEFLATE.name:
            continue
        try:
            accepted, codec = _DEFLATE.process_request_params(parameters, [])
        except NegotiationError:
            continue
        parts = [one if value is None else f"{one}={value}" for one, value in accepted]
        return "; ".join([name, *parts]), codec
    return "", None


def encode(opcode: int, payload: bytes, bits: int = _FIN) -> bytes:
    """Return an unmasked frame."""
    size = len(payload)
    if size <= _MAX_CONTROL:
        return b"%c%c%b" % (bits | opcode, size, payload)
    if size < 1 << 16:
        return b"%c~%b%b" % (bits | opcode, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (bits | opcode, size.to_bytes(8, "big"), payload)


class FrameCodec:
    """The frames of one connection. ``max_size``: bytes of the largest message.

    ``replies`` are the Pongs that are owed, encoded, in order; the caller sends and clears them.
    ``closed`` is the client's Close, once it has arrived; nothing behind it is read.
    """

    __slots__ = (
        "_at",
        "_buffer",
        "_decoder",
        "_deflate",
        "_deflated",
        "_kind",
        "_max_size",
        "_message",
        "_needed",
        "closed",
        "replies",
    )

    def __init__(self, max_size: int, deflate: PerMessageDeflate | None) -> None:
        self._max_size = max_size
        self._deflate = deflate
        self._buffer: bytes | bytearray = b""
        self._at = 0
        """Where the next frame begins in the buffer."""
        self._needed = _HEADER
        """Bytes from there without which nothing more can be understood."""
        self._kind = _CONT
        """_TEXT or _BINARY: fragments of such a message have arrived, and are in ``_message``."""
        self._message = bytearray()
        self._deflated = False
        self._decoder: Any = None
        """Checks the UTF-8 of fragments as they come."""
        self.replies: list[bytes] = []
        self.closed: Close | None = None

    # --- input -----------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take input."""
        if self._at == len(self._buffer):
            self._buffer, self._at = data, 0
            return
        if isinstance(self._buffer, bytes) or self._at:
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
            self._at = 0
        self._buffer += data

    @property
    def unread(self) -> bool:
        """Whether input is left that was not understood yet, or is not."""
        return self._at < len(self._buffer)

    def next_message(self) -> str | bytes | None:
        """Return the next message; None: more input is needed, or the client has sent a Close.

        Raises FrameError.
        """
        while len(self._buffer) - self._at >= self._needed and self.closed is None:
            head = self._next_head()
            if head is None:
                return None
            start, length = head
            at, buffer = self._at, self._buffer
            end = start + length
            if len(buffer) < end:
                self._needed = end - at
                return None
            first = buffer[at]
            payload = apply_mask(buffer[start:end], buffer[start - 4 : start])
            if end == len(buffer):
                self._buffer, self._at = b"", 0  # an idle connection keeps no message
            else:
                self._at = end
            self._needed = _HEADER
            if first in _WHOLE and self._kind == _CONT:
                return _decoded(payload) if first & _TEXT else payload
            message = self._take(first, payload)
            if message is not None:
                return message
        return None

    def _next_head(self) -> tuple[int, int] | None:
        """Return where the payload of the next frame begins, and its length; None: more input is needed."""
        at, buffer = self._at, self._buffer
        first, second = buffer[at], buffer[at + 1]
        length = second & _LENGTH
        if first not in _WHOLE:
            self._check_head(first, length)
        if not second & _MASKED:
            raise FrameError(PROTOCOL_ERROR, "a frame is not masked")
        start = at + 6
        if length > _MAX_CONTROL:
            size = 2 if length == _MAX_CONTROL + 1 else 8
            start += size
            if len(buffer) < start:
                self._needed = start - at
                return None
            length = int.from_bytes(buffer[at + 2 : at + 2 + size], "big")
            if length <= (_MAX_CONTROL if size == 2 else 0xFFFF) or length >> 63:
                raise FrameError(PROTOCOL_ERROR, "a length is not in its shortest form")
        if length > self._max_size - len(self._message) and not first & _CLOSE:
            raise FrameError(TOO_BIG, "the message is too big")
        return start, length

    def _check_head(self, first: int, length: int) -> None:
        opcode = first & _OPCODE
        allowed = _RSV1 if self._deflate is not None and opcode in {_TEXT, _BINARY} else 0
        if first & (_RSV1 | _RESERVED) & ~allowed:
            raise FrameError(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode in {_CLOSE, _PING, _PONG}:
            if not first & _FIN or length > _MAX_CONTROL:
                raise FrameError(PROTOCOL_ERROR, "a control frame is fragmented or too long")
        elif opcode not in {_CONT, _TEXT, _BINARY}:
            raise FrameError(PROTOCOL_ERROR, "an opcode is reserved")

    def _take(self, first: int, payload: bytes) -> str | bytes | None:
        """Take a control frame, a fragment, or a compressed message; return a message that it completes."""
        opcode = first & _OPCODE
        if opcode == _CLOSE:
            self._take_close(payload)
        elif opcode == _PING:
            self.replies.append(encode(_PONG, payload))
        elif opcode != _PONG:
            return self._take_data(first, opcode, payload)
        return None

    def _take_close(self, payload: bytes) -> None:
        try:
            self.closed = Close.parse(payload)
        except ProtocolError:
            raise FrameError(PROTOCOL_ERROR, "a Close is malformed") from None
        except UnicodeDecodeError:
            raise FrameError(INVALID_DATA, "the reason of a Close is not UTF-8") from None

    def _take_data(self, first: int, opcode: int, payload: bytes) -> str | bytes | None:
        final = bool(first & _FIN)
        if opcode != _CONT:
            if self._kind != _CONT:
                raise FrameError(PROTOCOL_ERROR, "a message begins within another")
            self._kind = opcode
            self._deflated = bool(first & _RSV1)
            if opcode == _TEXT:
                self._decoder = codecs.getincrementaldecoder("utf-8")()
        elif self._kind == _CONT:
            raise FrameError(PROTOCOL_ERROR, "a continuation has no beginning")
        if self._deflated:
            payload = self._inflated(opcode, payload, final=final)
        self._message += payload
        if self._kind == _TEXT:
            try:
                self._decoder.decode(payload, final)
            except UnicodeDecodeError:
                raise FrameError(INVALID_DATA, "a text is not UTF-8") from None
        return self._completed() if final else None

    def _completed(self) -> str | bytes:
        kind, message = self._kind, bytes(self._message)
        self._kind = _CONT
        self._message = bytearray()
        return message.decode() if kind == _TEXT else message

    def _inflated(self, opcode: int, payload: bytes, *, final: bool) -> bytes:
        codec: Any = self._deflate
        room = self._max_size - len(self._message)
        try:
            # One byte more than allowed: then a message of just the allowed size differs from a larger one.
            frame = Frame(Opcode(opcode), payload, final, opcode != _CONT)
            data = bytes(codec.decode(frame, max_size=room + 1).data)
            decoder = getattr(codec, "decoder", None)
            if decoder is not None and decoder.eof:
                # RFC 7692, section 7.2.3.4: a block may be the last of its stream; another stream follows.
                codec.decoder = zlib.decompressobj(wbits=-codec.remote_max_window_bits)
                data += codec.decoder.decompress(decoder.unused_data, room + 1)
        except (ProtocolError, zlib.error):
            raise FrameError(INVALID_DATA, "compressed data is corrupt") from None
        except PayloadTooBig:
            data = bytes(room + 1)
        if len(data) > room:
            raise FrameError(TOO_BIG, "the message is too big")
        return data

    # --- output ----------------------------------------------------------------------------------

    def text(self, data: str) -> bytes:
        """Return a message of text, encoded. Raises UnicodeEncodeError for lone surrogates."""
        payload = data.encode()
        return encode(_TEXT, payload) if self._deflate is None else self._compressed(_TEXT, payload)

    def binary(self, data: bytes) -> bytes:
        """Return a binary message, encoded."""
        return encode(_BINARY, data) if self._deflate is None else self._compressed(_BINARY, data)

    def _compressed(self, opcode: int, payload: bytes) -> bytes:
        codec: Any = self._deflate
        frame = codec.encode(Frame(Opcode(opcode), payload))
        return encode(opcode, bytes(frame.data), _FIN | _RSV1)


def ping() -> bytes:
    """Return a Ping, encoded."""
    return encode(_PING, b"")


def close(code: int, reason: str) -> bytes:
    """Return a Close, encoded; without a payload for NO_CODE (section 7.4.1).

    Raises ValueError for a code that must not be sent (section 7.4) or a reason above 123 bytes.
    """
    if code == NO_CODE and not reason:
        return encode(_CLOSE, b"")
    try:
        payload = Close(code, reason).serialize()
    except ProtocolError:
        raise ValueError(f"not a code of a Close: {code!r}") from None
    if len(payload) > _MAX_CONTROL:
        raise ValueError("the reason of a Close is longer than 123 bytes")
    return encode(_CLOSE, payload)


def _decoded(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_DATA, "a text is not UTF-8") from None
