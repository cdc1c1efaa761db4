"""A worker's loop in a thread of the test, with a real acceptor: listener, channel, slot."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager

import msgspec

from preforkd.config.settings import AccessLogSettings, HttpSettings, Settings
from preforkd.ipc import messages, slots
from preforkd.ipc.channel import Channel, pair
from preforkd.worker import stream
from preforkd.worker.acceptor import Acceptor, Listener
from preforkd.worker.handshakes import Handshakes
from preforkd.worker.wsgi import loop


class Worker:
    """What a test holds of a worker that serves."""

    def __init__(
        self,
        application,
        kind,
        access=None,
        *,
        whole=None,
        beside=None,
        handoff=None,
        hooks=None,
        listener=None,
        **settings,
    ) -> None:
        """``whole`` are all settings; ``beside`` is a worker whose listener is shared."""
        if listener is not None:
            self.listener = listener
        elif beside is not None:
            self.listener = beside.listener.dup()
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
        self.settings = whole
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        ours, theirs = pair()
        self.master: Channel = Channel(ours, msgspec.msgpack.Decoder(messages.FromWorker))
        memory = slots.create("test")
        self.slot = slots.SlotReader(os.dup(memory))
        self._writer = slots.SlotWriter(memory, lambda: None)
        os.close(memory)
        channel: Channel = Channel(theirs, msgspec.msgpack.Decoder(messages.ToWorker))
        self._channel = channel
        acceptor = Acceptor([Listener("test", self.listener)], channel, self._writer)
        self.acceptor = acceptor
        if kind == "wsgi":
            whole = whole or Settings(
                http=HttpSettings(**settings), access_log=access or AccessLogSettings()
            )
            self.loop = loop.WsgiLoop(acceptor, application, whole, handoff, hooks)
            serve = self.loop.run
        elif kind == "asgi":
            whole = whole or Settings(
                http=HttpSettings(**settings), access_log=access or AccessLogSettings()
            )
            serve = lambda: serve_asgi(acceptor, application, whole)  # noqa: E731
        else:
            handshakes = Handshakes(acceptor, whole) if whole is not None else None
            serve = lambda: stream.serve(acceptor, application, handshakes)  # noqa: E731
        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def ask(self, data: bytes) -> bytes:
        """Send this on a connection and return all that comes until the end."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def retire(self, linger: float = 0.0, within: float | None = None) -> None:
        self.master.send(messages.Retire(linger, within))

    def ended(self) -> bool:
        self.thread.join(20)
        return not self.thread.is_alive()

    def close(self) -> None:
        if self.thread.is_alive():
            self.retire()
            assert self.ended()
        self.acceptor.close()
        self.master.close()
        self._channel.close()
        self.slot.close()
        self._writer.close()


def serve_asgi(acceptor: Acceptor, application, settings: Settings) -> None:
    from preforkd.worker.asgi.server import AsgiServer

    server = AsgiServer(acceptor, application, settings)
    server.prepare()
    server.serve()


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(1 << 20):
        data += piece
    return bytes(data)


def read_answer(sock: socket.socket) -> tuple[str, bytes]:
    """Return head and body of one answer with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    whole = bytearray(body)
    while len(whole) < length:
        piece = sock.recv(1 << 20)
        assert piece, f"{len(whole)} of {length} bytes came"
        whole += piece
    return head.decode(), bytes(whole)


def wait_until(condition):
    """Wait until ``condition()`` is true; for what a worker does behind its answer."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def serving(application, kind="wsgi", access=None, **settings):
    """Let a worker serve; the settings are those of http, or all as ``whole``."""
    worker = Worker(application, kind, access, **settings)
    try:
        yield worker
    finally:
        worker.close()
