"""How a drain ends connections, requests and WebSockets."""

import asyncio
from types import SimpleNamespace

import pytest

from preforkd.worker.asgi.drain import Drain
from tests.worker.asgi.applications import (
    GET,
    serving_asgi,
)
from tests.worker.serving import read_all, read_answer


def test_a_retiring_worker_answers_requests_that_have_begun():
    """Half a head is waited for and answered; a new connection gets the answer to its first request."""
    with serving_asgi() as worker, worker.connect() as half, worker.connect() as quiet:
        with worker.connect() as kept:
            kept.sendall(GET % (b"/", b""))
            read_answer(kept)
            half.sendall(b"GET /half")
            kept.sendall(GET % (b"/", b""))
            read_answer(kept)
            worker.retire()
            assert read_all(kept) == b""
        half.sendall(b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"/half" in read_all(half)
        quiet.sendall(GET % (b"/first", b""))
        assert b"Connection: close" in read_all(quiet)
        assert worker.ended()


def endless_events(events):
    """Return an application that sends events without end; it appends what happens to ``events``."""

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            events.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                part = {"type": "http.response.body", "body": b"data: x\n\n", "more_body": True}
                await send(part)
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    return application


def test_endless_requests_are_cancelled_before_the_end_of_the_drain(caplog):
    """The lifespan's shutdown runs afterwards; the log names the request, without a traceback."""
    events = []
    with serving_asgi(endless_events(events)) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/events", b""))
        assert b"data: x" in sock.recv(65536) + sock.recv(65536)
        worker.retire(within=1.0)
        assert worker.ended()
        assert read_all(sock).endswith(b"data: x\n\n\r\n")
    assert events == ["cancelled", "shutdown"]
    (record,) = caplog.records
    assert "1 requests are still running 0.25 s before" in record.getMessage()
    assert "GET '/events'" in record.getMessage()


def test_a_client_that_does_not_read_does_not_prolong_the_drain():
    """The unsent output is dropped at the end of the drain, and the lifespan's shutdown runs."""
    events = []

    async def much(scope, receive, send):
        if scope["type"] == "lifespan":
            await endless_events(events)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 50_000_000})

    with serving_asgi(much) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/much", b""))
        assert sock.recv(10)
        worker.retire(within=1.0)
        assert worker.ended()
    assert events == ["shutdown"]


def test_websockets_are_closed_before_the_end_of_a_short_drain():
    """The linger time is cut to the drain's: the client gets 1012, not a reset."""
    client = pytest.importorskip("websockets.sync.client")
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
    with serving_asgi() as worker, client.connect(f"ws://127.0.0.1:{worker.address[1]}/") as talks:
        talks.recv()
        worker.retire(linger=60.0, within=1.0)
        with pytest.raises(closed) as caught:
            talks.recv()
        assert caught.value.rcvd.code == 1012
        assert worker.ended()


def test_a_stream_that_listens_ends_before_it_is_cancelled(caplog):
    """http.disconnect is received before the end of the drain, and what is sent then still arrives."""

    async def polls(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"last"})

    with serving_asgi(polls) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        assert b"first" in sock.recv(65536)
        worker.retire(within=1.0)
        assert read_all(sock).endswith(b"last\r\n0\r\n\r\n")
        assert worker.ended()
    assert not caplog.records


class ClockLoop(asyncio.SelectorEventLoop):
    """A loop that does not sleep: its clock goes on instead. It begins at 0 s."""

    def __init__(self):
        super().__init__()
        self.now, select = 0.0, self._selector.select
        self._selector.select = lambda timeout: (self.advance(timeout), select(0))[1]

    def advance(self, timeout):
        assert timeout is not None, "the loop waits for ever"
        self.now += timeout

    def time(self):
        return self.now


class Draining:
    """A drain on a fake clock; ``calls`` are what it did, with the second."""

    def __init__(self, *, linger=0.0, ordered=None, timeout=100.0):
        self.loop, self.calls = ClockLoop(), []
        self.requests, self.openings = [], set()
        self.shared = SimpleNamespace(
            loop=self.loop,
            acceptor=SimpleNamespace(linger=linger, drain_timeout=ordered),
            tracker=SimpleNamespace(running=lambda: list(self.requests)),
            connections=set(),
            websocket_tasks=set(),
        )
        self.drain = Drain(self.shared, self.openings, timeout)

    def call(self, what):
        self.calls.append((round(self.loop.now, 6), what))

    def run(self):
        """Return the second at which the drain has ended."""
        try:
            self.loop.run_until_complete(self.drain.run())
            return round(self.loop.now, 6)
        finally:
            for request in self.requests:
                request.task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


class Thing:
    """A connection or an opening of a drain; it is gone after its first call but for those named."""

    def __init__(self, draining, things, stays=()):
        self.draining, self.things, self.stays = draining, things, stays
        self.transport = self
        things.add(self)

    def __getattr__(self, name):
        return lambda: self.called(name)

    def called(self, name):
        self.draining.call(name)
        if name not in self.stays:
            self.end()

    def end(self):
        self.things.discard(self)
        self.draining.drain.on_change()


class Endless:
    """A running request; it takes no notice of a cancellation for ``seconds``."""

    def __init__(self, draining, target=b"/x", seconds=0.0):
        self.draining, self.seconds = draining, seconds
        self.cached = SimpleNamespace(head=SimpleNamespace(method="GET", target=target))
        self.task = draining.loop.create_task(self.wait())
        draining.requests.append(self)

    async def wait(self):
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            self.draining.call("cancelled")
            await asyncio.sleep(self.seconds)

    def end_of_input(self):
        self.draining.call("end_of_input")


def test_a_drain_without_connections_ends_at_once(caplog):
    """Whatever the linger time."""
    assert Draining(linger=10.0).run() == 0.0
    assert not caplog.records


@pytest.mark.parametrize(
    ("how", "at"),
    [
        ({"linger": 10.0}, 10.0),
        ({"linger": 0.0}, 0.0),
        ({"linger": 1000.0}, 0.8 * 95.0),
        ({"linger": 1000.0, "timeout": 8.0}, 0.8 * 6.0),
        ({"linger": 1000.0, "ordered": 4.0}, 0.8 * 3.0),
    ],
)
def test_when_idle_connections_are_closed(how, at):
    """After the linger time, or four fifths of the drain before cancellations; an order's time comes first."""
    draining = Draining(**how)
    Thing(draining, draining.shared.connections)
    assert draining.run() == pytest.approx(at)
    assert draining.calls == [(pytest.approx(at), "shutdown")]


def test_openings_end_before_connections_are_closed():
    """A connection that begins during the drain gets its answer."""
    draining = Draining()
    opening = Thing(draining, draining.openings)
    Thing(draining, draining.shared.connections)
    draining.loop.call_at(3.0, opening.end)
    assert draining.run() == 3.0
    assert draining.calls == [(3.0, "shutdown")]


def test_websockets_and_requests_are_waited_for(caplog):
    """Their connections may be lost before their tasks end."""
    draining = Draining()
    draining.shared.websocket_tasks.add(task := draining.loop.create_task(asyncio.sleep(7.0)))
    task.add_done_callback(draining.shared.websocket_tasks.discard)
    assert draining.run() == 7.0
    assert not caplog.records


@pytest.mark.parametrize(
    ("how", "announced", "cancelled"),
    [
        ({}, 90.0, 95.0),
        ({"linger": 92.0}, 92.0, 95.0),
        ({"linger": 200.0}, 95.0, 95.0),
        ({"timeout": 8.0}, 4.0, 6.0),
    ],
)
def test_when_requests_are_cancelled(how, announced, cancelled, caplog):
    """5 s before the end of the drain, or a quarter; they are announced it as long before."""
    draining = Draining(**how)
    Endless(draining)
    assert draining.run() == cancelled
    assert draining.calls[0] == (announced, "end_of_input")
    assert draining.calls[-1] == (cancelled, "cancelled")
    (record,) = caplog.records
    assert record.name == "preforkd.worker"


def test_the_end_of_a_drain_is_bounded(caplog):
    """Half of the last seconds for cancelled requests, a quarter for connections that are aborted."""
    draining = Draining()
    Endless(draining, seconds=1000.0)
    Thing(draining, draining.openings)
    Thing(draining, draining.shared.connections, stays=("shutdown", "abort"))
    assert draining.run() == 95.0 + 2.5 + 1.25
    assert draining.calls == [
        (90.0, "end_of_input"),
        (95.0, "end_of_input"),
        (95.0, "cancel"),
        (95.0, "cancelled"),
        (97.5, "abort"),
    ]


def test_five_requests_are_named(caplog):
    """All are counted."""
    draining = Draining()
    for number in range(7):
        Endless(draining, target=b"/%d" % number)
    draining.run()
    message = caplog.records[0].getMessage()
    assert message.startswith("7 requests are still running 5 s before the end")
    assert message.count("; GET '/") == 5
    assert message.count("Task ") == 5
