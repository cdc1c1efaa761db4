"""A client of WebSockets: messages of 64 bytes that are echoed, on several connections at once."""

from __future__ import annotations

import base64
import os
import select
import socket
import time

CONNECTIONS, SIZE = 8, 64
_MESSAGE = bytes((0x82, 0x80 | SIZE)) + b"\0\0\0\0" + b"x" * SIZE
"""A binary message whose mask changes nothing, so that the client need not compute it."""
_ECHO = bytes((0x82, SIZE)) + b"x" * SIZE


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        b"GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(4096)
    if not answer.startswith(b"HTTP/1.1 101"):
        raise OSError(answer[:80].decode("latin-1"))
    return sock


def echoes(port: int, seconds: int) -> tuple[float, int]:
    """Return the messages a second that came back, and the connections that failed."""
    socks = [_connect(port) for _ in range(CONNECTIONS)]
    poll = select.epoll()
    by_descriptor = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        poll.register(sock.fileno(), select.EPOLLIN)
        sock.sendall(_MESSAGE)
    begun = time.monotonic()
    count = failed = 0
    try:
        while time.monotonic() < begun + seconds and by_descriptor:
            for descriptor, _ in poll.poll(1):
                if by_descriptor[descriptor].recv(4096) == _ECHO:
                    count += 1
                    by_descriptor[descriptor].sendall(_MESSAGE)
                else:
                    failed += 1
                    poll.unregister(descriptor)
                    del by_descriptor[descriptor]
        return count / (time.monotonic() - begun), failed
    finally:
        poll.close()
        for sock in socks:
            sock.close()
