"""The ASGI server: how connections begin."""

import asyncio
import os
import select
import socket
import ssl
import sys
from types import SimpleNamespace

import pytest

from preforkd.config.settings import (
    HttpSettings,
    ProxySettings,
    TlsSettings,
)
from preforkd.worker.asgi import server
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    V1,
    listener_settings,
    serving_asgi,
)
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all, read_answer, wait_until


def test_a_stalled_tls_handshake_delays_no_other_connection():
    """A client that sends nothing delays no other handshake; ALPN selects http/1.1."""
    settings = listener_settings(
        tls=True,
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
        http=HttpSettings(header_timeout=1),
    )
    context = ssl.create_default_context(cadata=CERTIFICATE)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with serving_asgi(whole=settings) as worker, worker.connect() as silent:
        silent.sendall(b"\x16\x03\x01")
        with context.wrap_socket(worker.connect(), server_hostname="localhost") as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"
            sock.sendall(GET % (b"/", CLOSE))
            assert b"https (" in read_all(sock)


@pytest.fixture
def servers(monkeypatch):
    """The servers that the test begins."""
    servers = []

    class Kept(server.AsgiServer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            servers.append(self)

    monkeypatch.setattr(server, "AsgiServer", Kept)
    return servers


def test_connections_are_bounded():
    """Above ``http.connections`` none is accepted, until one has ended; the slot counts them."""
    with serving_asgi(connections=2) as worker:
        first, second, third = (worker.connect() for _ in range(3))
        with first, second, third:
            for sock in (first, second, third):
                sock.sendall(GET % (b"/", b""))
            read_answer(first)
            read_answer(second)
            assert worker.slot.read(1e18).connections == 2
            assert not select.select([third], [], [], 0.1)[0]
            first.close()
            read_answer(third)
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", CLOSE))
            read_all(sock)
        wait_until(lambda: not worker.slot.read(1e18).connections)


def peers(descriptors):
    """Return the peers of the connections among descriptors, and whether an epoll is among them."""
    found, polls = set(), False
    for descriptor in descriptors:
        polls = polls or "eventpoll" in os.readlink(f"/proc/self/fd/{descriptor}")
        try:
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                found.add(sock.getpeername())
        except OSError:
            pass
    return found, polls


@pytest.mark.parametrize("proxied", [False, True])
def test_what_a_child_of_the_application_closes(servers, proxied):
    """The connections, those without their PROXY header too, and the loop's epoll while it is open."""
    proxy = ProxySettings(trusted=("127.0.0.1",))
    settings = listener_settings(proxy_protocol=proxied, proxy=proxy)
    with serving_asgi(whole=settings) as worker, worker.connect() as half, worker.connect() as sock:
        half.sendall(V1[:5] if proxied else b"G")
        sock.sendall((V1 if proxied else b"") + GET % (b"/", b""))
        read_answer(sock)
        found, polls = peers(servers[0].descriptors())
        assert found == {half.getsockname(), sock.getsockname()}
        assert polls
    assert servers[0].descriptors() == []


def test_a_failed_handshake_is_no_error(caplog):
    """The connection is closed, and others are served; neither is in the log."""
    settings = listener_settings(
        tls=True, tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY)
    )
    context = ssl.create_default_context(cadata=CERTIFICATE)
    with serving_asgi(whole=settings) as worker:
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            assert b"HTTP" not in read_all(sock)
        with context.wrap_socket(worker.connect(), server_hostname="localhost") as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert b" 200 " in read_all(sock)
    assert not caplog.records


def test_uvloop_is_used_where_it_is_installed(monkeypatch):
    """The application runs in its loop."""

    class UvLoop(asyncio.SelectorEventLoop):
        """Stands for it."""

    monkeypatch.setitem(sys.modules, "uvloop", SimpleNamespace(new_event_loop=UvLoop))
    used = []

    async def looks(scope, receive, send):
        used.append(asyncio.get_running_loop().__class__)

    with serving_asgi(looks) as worker:
        worker.ask(GET % (b"/", b""))
    assert used[-1] is UvLoop


def test_without_uvloop_the_loop_is_asyncios(monkeypatch):
    """It is an optional extra."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with serving_asgi() as worker:
        assert b" 200 " in worker.ask(GET % (b"/", CLOSE))


class Application:
    """Answers, and records the loop and the lifespan's events."""

    def __init__(self):
        self.events, self.loop = [], None

    async def __call__(self, scope, receive, send):
        self.loop = asyncio.get_running_loop()
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
                self.events.append(what)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"fine"})


def interrupt():
    raise KeyboardInterrupt


def report(loop, **context):
    """Let the loop report an error, as it does by itself."""
    loop.call_soon_threadsafe(loop.call_exception_handler, context)


@pytest.mark.parametrize("where", ["callback", "uvloop"])
def test_an_exception_of_a_signal_handler_retires_the_worker(where, caplog):
    """What has begun is answered, and the lifespan is shut down; uvloop reports it as an error of the loop."""
    application = Application()
    with serving_asgi(application) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        read_answer(sock)
        sock.sendall(b"GET /half")
        if where == "callback":
            application.loop.call_soon_threadsafe(interrupt)
        else:
            handle = "<Handle _read_from_self>"
            report(application.loop, handle=handle, exception=KeyboardInterrupt())
        wait_until(lambda: worker.acceptor.retiring)
        sock.sendall(b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_all(sock).endswith(b"fine")
        assert worker.ended()
    assert application.events == ["startup", "shutdown"]
    assert [record.name for record in caplog.records] == ["preforkd.app"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_drain_that_a_signal_handler_interrupts(times, monkeypatch, caplog):
    """It begins again, once; the worker ends in any case."""
    run, left = server.Drain.run, ["interrupt"] * times

    async def interrupted(drain):
        if left:
            left.pop()
            interrupt()
        await run(drain)

    monkeypatch.setattr(server.Drain, "run", interrupted)
    application = Application()
    with serving_asgi(application) as worker:
        worker.ask(GET % (b"/", CLOSE))
        worker.retire()
        assert worker.ended()
    assert not left
    assert application.events == ["startup", "shutdown"][: 3 - times]


def test_other_errors_of_the_loop_are_logged(caplog):
    """As asyncio does it; the worker serves on."""
    application = Application()
    with serving_asgi(application) as worker:
        worker.ask(GET % (b"/", CLOSE))
        report(application.loop, message="it fails", exception=ValueError("in a callback"))
        report(application.loop, message="it is closed", handle="_read_from_self")
        assert b" 200 " in worker.ask(GET % (b"/", CLOSE))
        assert not worker.acceptor.retiring
    names = [(record.name, record.getMessage().split("\n")[0]) for record in caplog.records]
    assert names == [("asyncio", "it fails"), ("asyncio", "it is closed")]
