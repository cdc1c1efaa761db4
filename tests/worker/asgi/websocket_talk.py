"""A WebSocket on a transport of the test, in a loop whose clock the test sets: no socket, no waiting."""

import asyncio
import logging
import socket
from contextlib import contextmanager
from types import SimpleNamespace

from preforkd.config.settings import HttpSettings, WebSocketSettings
from preforkd.http import upgrade
from preforkd.http.engine import HttpEngine
from preforkd.http.head import Bounds, HeadParser
from preforkd.http.response import Renderer
from preforkd.worker.asgi.websocket import start_websocket
from tests.worker.asgi.websocket_frames import parsed

REQUEST = (
    b"GET /chat?x=1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


class Transport:
    """Keeps what is written; the test decides when output is taken and when the connection is lost."""

    def __init__(self, loop) -> None:
        self.loop = loop
        self.protocol = None
        self.written = []
        self.buffered = 0
        self.calls = []
        """In order: pause, resume, eof, close, abort."""
        self.closing = False
        self.half_close = True
        self.sockets = socket.socketpair()
        """Of which nothing is sent: the timeout for sending asks the kernel."""

    def set_protocol(self, protocol):
        self.protocol = protocol

    def write(self, data):
        assert "eof" not in self.calls
        assert not self.closing
        self.written.append(bytes(data))

    def pause_reading(self):
        assert self.is_reading()
        self.calls.append("pause")

    def resume_reading(self):
        assert not self.is_reading()
        self.calls.append("resume")

    def is_reading(self):
        return [one for one in self.calls if one in {"pause", "resume"}][-1:] != ["pause"]

    def can_write_eof(self):
        return self.half_close

    def write_eof(self):
        assert self.half_close
        self.calls.append("eof")

    def is_closing(self):
        return self.closing

    def get_write_buffer_size(self):
        return self.buffered

    def get_extra_info(self, name):
        return self.sockets[0]

    def close(self):
        self._end("close")

    def abort(self):
        self._end("abort")

    def _end(self, how):
        if not self.closing:
            self.closing = True
            self.calls.append(how)
            self.loop.call_soon(self.protocol.connection_lost, None)


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time stands still unless the test moves it."""

    now = 1000.0

    def time(self):
        return self.now


class Head:
    """What the engine keeps of a head."""

    def __init__(self, head) -> None:
        self.head = head


class Talk:
    """One WebSocket with its application; see `talking`."""

    def __init__(
        self, application, loop, *, fields, more, http, scope, access_log, **settings
    ) -> None:
        self.loop = loop
        self.transport = Transport(loop)
        self.entries, self.done, self.lost = [], 0, []
        self.connections, self.tasks = set(), set()
        self.exits = []
        shared = SimpleNamespace(
            loop=loop,
            application=application,
            limits=http,
            websocket=WebSocketSettings(**settings),
            renderer=Renderer("test"),
            acceptor=SimpleNamespace(
                retire=lambda: self.exits.append("retire"), wake=lambda: self.exits.append("wake")
            ),
            tracker=SimpleNamespace(count=self._count),
            log=access_log,
            write_log=self.entries.append,
            add=self.connections.add,
            discard=self._lost,
            websocket_tasks=self.tasks,
        )
        bounds = Bounds()
        parser = HeadParser(bounds)
        self.engine = HttpEngine(bounds, lambda data: Head(parser.parse(data)))
        self.engine.receive(REQUEST % fields + more)
        head = self.engine.next_event().head
        plain = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": "/chat",
            "headers": head.headers,
            "extensions": {"http.response.trailers": {}},
        }
        self.websocket = start_websocket(
            shared,
            self.transport,
            scope={**plain, **(scope or {})},
            head=head,
            request=upgrade.check(head),
            engine=self.engine,
            remote="1.2.3.4",
        )
        self.turn()

    def _count(self):
        self.done += 1

    def _lost(self, websocket):
        self.connections.discard(websocket)
        self.lost.append(websocket)

    def turn(self):
        """Run all that is ready."""
        for _ in range(20):
            self.loop.run_until_complete(asyncio.sleep(0))

    def feed(self, data):
        """Let the client send this."""
        if self.transport.closing or not self.transport.is_reading():
            raise AssertionError("nothing is read from the connection")
        self.websocket.data_received(data)
        self.turn()

    def wait(self, seconds):
        """Let time pass, from timer to timer."""
        end = self.loop.now + seconds
        while self.loop._scheduled and self.loop._scheduled[0].when() <= end:
            self.loop.now = max(self.loop.now, self.loop._scheduled[0].when())
            self.turn()
        self.loop.now = end
        self.turn()

    def lose(self):
        """Let the connection break."""
        self.transport.closing = True
        self.websocket.connection_lost(ConnectionResetError())
        self.turn()

    def output(self):
        """Return all bytes that were written and not returned yet."""
        data = b"".join(self.transport.written)
        self.transport.written.clear()
        return data

    def accepted(self):
        """Return the head of the answer 101; frames follow it."""
        head, separator, rest = self.output().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert separator
        if rest:
            self.transport.written.append(rest)
        return head.decode().split("\r\n")

    def frames(self):
        """Return the frames that were sent since the last call."""
        return parsed(self.output())

    @property
    def ended(self):
        """Whether the application has ended."""
        return self.websocket.task.done()


@contextmanager
def talking(
    application, fields=b"", *, more=b"", http=None, scope=None, access_log=True, **settings
):
    """Yield the `Talk` of an application.

    ``fields``, ``more``: headers of the handshake, bytes behind it; ``scope``: what differs in the request's.
    """
    loop = Loop()
    asyncio.set_event_loop(loop)
    talk = None
    try:
        talk = Talk(
            application,
            loop,
            fields=fields,
            more=more,
            http=http or HttpSettings(),
            scope=scope,
            access_log=access_log or None,
            **settings,
        )
        yield talk
    finally:
        if talk is not None and not talk.ended:
            talk.websocket.task.cancel()
            talk.turn()
        if talk is not None:
            for sock in talk.transport.sockets:
                sock.close()
        asyncio.set_event_loop(None)
        loop.close()


class Application:
    """Accepts, keeps what it receives and sends what it gets from the test, until told to return."""

    def __init__(self, **accept) -> None:
        self.accept = accept
        self.received = []
        self.hold = False
        """Receive nothing more until it is False again."""
        self.echo = False

    async def __call__(self, scope, receive, send):
        self.scope, self.send = scope, send
        assert (await receive()) == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", **self.accept})
        while True:
            while self.hold:
                await asyncio.sleep(0)
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                return
            if self.echo:
                await send({**message, "type": "websocket.send"})

    @property
    def messages(self):
        """What the messages have held."""
        return [
            one.get("text", one.get("bytes"))
            for one in self.received
            if one["type"] == "websocket.receive"
        ]

    @property
    def disconnect(self):
        """Code and reason of websocket.disconnect."""
        last = self.received[-1]
        assert last["type"] == "websocket.disconnect"
        return last["code"], last["reason"]


logging.getLogger("asyncio").setLevel(logging.WARNING)
