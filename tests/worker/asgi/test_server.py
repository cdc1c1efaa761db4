"""The ASGI worker: uvicorn's protocols with our limits, and what surrounds the application."""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time

import pytest

from preforkd.config.settings import (
    AccessLogSettings,
    HttpSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from preforkd.ipc import messages
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all, read_answer, serving

pytest.importorskip("uvicorn")
GET = b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
CLOSE = b"Connection: close\r\n"
SHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


async def show(scope, receive, send):
    """Say what the scope says of the client, and the body; echo on a WebSocket."""
    if scope["type"] == "websocket":
        await talk(scope, receive, send)
        return
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text = f"{scope['scheme']} {scope['client']} {scope['path']} ".encode() + body
    names = b" ".join(name for name, _ in scope["headers"])
    headers = [(b"content-length", b"%d" % len(text)), (b"x-names", names)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def talk(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": f"{scope['scheme']} {scope['client']}"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"].upper()})


def asgi(application=show, **how):
    return serving(application, kind="asgi", **how)


def listening(http=None, proxy=None, tls_section=None, **how):
    return Settings(
        listen=(ListenSettings(name="test", **how),),
        http=http or HttpSettings(),
        proxy=proxy or ProxySettings(),
        tls=tls_section or TlsSettings(),
    )


def refused(worker, data):
    """Tell whether the connection ends without an answer."""
    try:
        return worker.ask(data) == b""
    except ConnectionError:
        return True


def test_requests_one_after_the_other_and_counted():
    """Kept, pipelined, chunked; each counts once in the slot, and nothing is busy afterwards."""
    with asgi() as worker, worker.connect() as sock:
        for _ in range(3):
            sock.sendall(GET % (b"/a", b""))
            assert b"/a" in read_answer(sock)[1]
        chunks = b"3\r\nabc\r\n0\r\n\r\n"
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + GET % (b"/z", CLOSE))
        rest = read_all(sock)
        assert rest.count(b"HTTP/1.1 200 ") == 2
        assert b"/ abc" in rest
        reading = worker.slot.read(1e18)
        assert (reading.requests, reading.accepted, reading.busy_since) == (5, 1, None)


async def awkward(scope, receive, send):
    """Answer as the path says: in parts, without a length, or not to the end."""
    path, headers = scope["path"], []
    if path in {"/longer", "/shorter"}:
        headers = [(b"content-length", b"3")]
    await send(
        {
            "type": "http.response.start",
            "status": 204 if path == "/204" else 200,
            "headers": headers,
        }
    )
    if path == "/twice":
        await send({"type": "http.response.start", "status": 200})
    if path == "/fails":
        raise RuntimeError("it fails")
    if path == "/parts":
        for part in (b"one", b"", b"two" * 30_000):
            await send({"type": "http.response.body", "body": part, "more_body": True})
    if path != "/ends":
        await send(
            {
                "type": "http.response.body",
                "body": b"" if path == "/204" else b"four"[: 2 if path == "/shorter" else 4],
            }
        )


def test_answers_in_parts_and_without_a_length():
    """They come in chunks, HEAD has no body and 204 no framing, and the connection goes on."""
    with asgi(awkward) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/parts", b""))
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += sock.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        two = b"two" * 30_000
        assert body == b"3\r\none\r\n15f90\r\n" + two + b"\r\n4\r\nfour\r\n0\r\n\r\n"
        for request in (b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", GET % (b"/204", b"")):
            sock.sendall(request)
            answer = sock.recv(65536)
            assert answer.endswith(b"\r\n\r\n")
            assert b"chunked" not in answer
        assert worker.slot.read(1e18).requests >= 2


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_a_body_that_nobody_gets_is_not_waited_for(method, status):
    """Without end, it holds the connection no longer, and the application is told that it may stop."""
    told = threading.Event()

    async def endless(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        await send({"type": "http.response.start", "status": status, "headers": []})

        async def give():
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})

        giving = asyncio.ensure_future(give())
        while (await receive())["type"] != "http.disconnect":
            pass
        giving.cancel()
        told.set()

    with asgi(endless) as worker, worker.connect() as sock:
        for _ in range(2):
            told.clear()
            sock.sendall(method + b" / HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = sock.recv(65536)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert answer.endswith(b"\r\n\r\n")
            assert told.wait(20)


@pytest.mark.parametrize("path", [b"/fails", b"/twice", b"/ends", b"/longer", b"/shorter"])
def test_an_application_that_fails_before_a_body_is_answered_for(path):
    """Nothing was sent by then, so that the client gets a whole 500 instead of half an answer."""
    with asgi(awkward) as worker:
        answer = worker.ask(GET % (path, b""))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert answer.endswith(b"\r\n\r\nInternal Server Error")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GET % (b"/" + b"a" * 600, b""), 414),
        (GET % (b"/", b"A: " + b"b" * 800 + b"\r\n"), 431),
        (GET % (b"/", (b"A: " + b"b" * 400 + b"\r\n") * 3), 431),
        (GET % (b"/", b"A: b\r\n" * 30), 431),
        (POST + b"Content-Length: 2000\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, 413),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (b"NONSENSE\r\n\r\n", 400),
    ],
)
@pytest.mark.parametrize("pipelined", [False, True])
def test_what_is_too_large_is_refused(data, status, pipelined, caplog):
    """With its status, before the application has all of it; the log is not filled by it."""
    limits = {"max_line": 512, "max_field": 700, "max_header": 1024, "max_fields": 20}
    with asgi(max_body=1000, **limits) as worker, worker.connect() as sock:
        if pipelined:
            sock.sendall(GET % (b"/", b""))
            assert read_answer(sock)[0].startswith("HTTP/1.1 200 ")
        sock.sendall(data)
        assert read_all(sock).startswith(b"HTTP/1.1 %d " % status)
    assert not caplog.records


def test_those_who_send_nothing_are_parted_from():
    """Silence and an idle connection are closed, half a head is answered with 408, a body given up."""
    with asgi(header_timeout=0.2, keep_alive=0.2, body_timeout=0.2) as worker:
        assert worker.ask(b"") == b""
        assert worker.ask(b"\r\n") == b""
        assert worker.ask(b"GET / HT").startswith(b"HTTP/1.1 408 ")
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
            assert read_all(sock) == b""
        with worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
            sock.sendall(b"\r\n")  # this is no request, and no reason to stay
            assert read_all(sock) == b""
        assert refused(worker, POST + b"Content-Length: 5\r\n\r\nab")


def test_an_application_that_takes_its_time_with_a_body_is_waited_for():
    """While it does not read, nothing is the client's fault."""
    go = threading.Event()

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        while not go.is_set():
            await asyncio.sleep(0.01)
        await show(scope, receive, send)

    with asgi(slow, body_timeout=1) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 500000\r\n\r\n" + b"x" * 500_000)
        threading.Timer(2.5, go.set).start()
        assert len(read_answer(sock)[1]) > 500_000


def test_the_clients_time_begins_when_reading_goes_on():
    """However long nothing was read before: it is not judged by what came before the pause."""
    judged = []

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        protocol = receive.__self__.on_response.__self__
        deadline = time.monotonic() + 20
        while not (protocol.flow.read_paused and late(protocol)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        protocol.flow.resume_reading()
        protocol._check_body_rate()
        judged.append(protocol.transport.is_closing())
        await show(scope, receive, send)

    def late(protocol):
        return protocol.loop.time() > protocol._body_came + 1

    with asgi(slow, body_timeout=1) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 500000\r\n\r\n" + b"x" * 500_000)
        assert len(read_answer(sock)[1]) > 500_000
    assert judged == [False]


def test_one_connection_has_so_many_requests():
    """The last is answered with Connection: close; without keep_alive the first is the last."""
    with asgi(max_requests=2) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        assert "connection: close" not in read_answer(sock)[0]
        sock.sendall(GET % (b"/", b""))
        assert b"connection: close" in read_all(sock)
    with asgi(keep_alive=0) as worker:
        assert b"connection: close" in worker.ask(GET % (b"/", b""))


def test_health():
    """Answered without the application; readiness fails while the worker is to leave soon."""

    async def never(scope, receive, send):
        raise AssertionError

    with asgi(never, healthy="/-/healthy", ready="/-/ready") as worker, worker.connect() as sock:
        for path in (b"/-/healthy", b"/-/ready", b"/-/ready?x=1"):
            sock.sendall(GET % (path, b""))
            assert read_answer(sock)[1] == b"ok\n"
        head = "HTTP/1.1 200 "
        worker.master.send(messages.DrainNotice())
        while " 200 " in head:
            sock.sendall(GET % (b"/-/ready", b""))
            head, _ = read_answer(sock)
        assert " 503 " in head
        assert worker.slot.read(1e18).requests == 0


def test_the_access_log(tmp_path):
    """One line for each request, with status and bytes; a failure is 500."""

    async def fails(scope, receive, send):
        if scope["path"] == "/fails":
            raise KeyError("boom")
        await show(scope, receive, send)

    target = tmp_path / "log"
    with asgi(fails, access=AccessLogSettings(target=str(target), format="json")) as worker:
        worker.ask(GET % (b"/a%20b?c=d", CLOSE))
        worker.ask(GET % (b"/fails", CLOSE))
    first, second = map(json.loads, target.read_text().splitlines())
    assert (first["status"], first["target"], first["remote"]) == (200, "/a%20b?c=d", "127.0.0.1")
    assert first["bytes"] > 10
    assert (second["status"], second["bytes"]) == (500, len(b"Internal Server Error"))


def logged(path, count):
    """Return status, bytes, method and target of so many lines of a log in JSON."""
    deadline = time.monotonic() + 20
    while not path.exists() or path.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    entries = map(json.loads, path.read_text().splitlines())
    return [(one["status"], one["bytes"], one["method"], one["target"]) for one in entries]


CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status", "method", "target"),
    [
        (GET % (b"/" + b"a" * 600, b""), 414, "GET", None),
        (GET % (b"/a", b"a: b\r\n" * 30), 431, "GET", "/a"),
        (POST + b"Content-Length: 9999\r\n\r\n", 413, "POST", "/"),
        (CHUNKS + b"7d1\r\n" + b"x" * 2001, 413, "POST", "/"),
        (CHUNKS + b"x\r\n", 400, "POST", "/"),
        (b"GET /late HTTP/1.1\r\nHo", 408, "GET", "/late"),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 501, "CONNECT", "h:80"),
        (SHAKE % b"Content-Length: 5\r\n", 400, "GET", "/ws"),
    ],
)
def test_a_refused_request_is_in_the_access_log(data, status, method, target, tmp_path):
    """With what was answered, and what is known of the request."""
    settings = Settings(
        http=HttpSettings(max_line=512, max_fields=20, max_body=2000, header_timeout=0.2),
        access_log=AccessLogSettings(target=str(tmp_path / "log"), format="json"),
    )
    with asgi(whole=settings) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/before", b""))
        read_answer(sock)
        sock.sendall(data)
        answer = read_all(sock)
        before, refused = logged(tmp_path / "log", 2)
    assert (before[0], before[3]) == (200, "/before")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    body = answer.partition(b"\r\n\r\n")[2]
    assert refused == (status, len(body), method, target or "/" + "a" * 600)


def test_what_is_no_request_is_in_the_access_log(tmp_path):
    """Shown as it came, made harmless."""
    with asgi(access=AccessLogSettings(target=str(tmp_path / "log"), format="json")) as worker:
        answer = worker.ask(b"\x16\x03\x01 nonsense\r\n")
        length = len(answer.partition(b"\r\n\r\n")[2])
        assert logged(tmp_path / "log", 1) == [(400, length, "", r"\x16\x03\x01 nonsense")]


def test_clients_that_leave_in_the_access_log(tmp_path):
    """499 for those without an answer; of an answer that was not taken, the bytes that were."""
    target, seen = tmp_path / "log", threading.Event()

    async def big(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        seen.set()
        while scope["path"] == "/waits" and (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})

    with asgi(big, access=AccessLogSettings(target=str(target), format="json")) as worker:
        with worker.connect() as sock:
            sock.sendall(b"GET /half HTTP/1.1\r\nHost")
        assert logged(target, 1)[0] == (499, 0, "GET", "/half")
        with worker.connect() as sock:
            sock.sendall(GET % (b"/waits", b""))
            assert seen.wait(20)
        assert logged(target, 2)[1] == (499, 0, "GET", "/waits")
        sock = worker.connect()
        sock.sendall(GET % (b"/big", b""))
        size = len(sock.recv(1000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        status, count, *_ = logged(target, 3)[2]
        assert status == 200
        assert size - 500 < count < 30_000_000
        assert b"xxxx" in worker.ask(GET % (b"/big", CLOSE))
        assert logged(target, 4)[3] == (200, 30_000_000, "GET", "/big")
        worker.ask(b"HEAD /big HTTP/1.1\r\nHost: h\r\n" + CLOSE + b"\r\n")
        assert logged(target, 5)[4] == (200, 0, "HEAD", "/big")


@pytest.mark.parametrize(("trusted", "client"), [("127.0.0.0/8", "1.2.3.4"), ("10.0.0.1", "127.")])
def test_forwarded_headers_count_from_trusted_peers_only(trusted, client):
    """From others, the application does not even see them."""
    proxy = ProxySettings(trusted=(trusted,), headers="x-forwarded")
    with asgi(whole=Settings(proxy=proxy)) as worker:
        headers = b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n" + CLOSE
        answer = worker.ask(GET % (b"/", headers)).decode()
        assert f"('{client}" in answer
        assert ("https (" in answer) == (client == "1.2.3.4") == ("x-forwarded-for" in answer)


V1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(
    "!H4s4sHH", 12, b"\1\2\3\4", b"\5\6\7\10", 1000, 80
)


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("secure", [False, True])
def test_the_proxy_protocol(header, secure):
    """Both versions, in pieces, before plain HTTP and before TLS; half a header keeps nobody waiting."""
    settings = listening(
        proxy_protocol=True,
        tls=secure,
        proxy=ProxySettings(trusted=("127.0.0.1",)),
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
    )
    with asgi(whole=settings) as worker, worker.connect() as half, worker.connect() as sock:
        half.sendall(header[:5])
        for at in range(len(header)):
            sock.sendall(header[at : at + 1])
        context = ssl.create_default_context(cadata=CERTIFICATE)
        with context.wrap_socket(sock, server_hostname="localhost") if secure else sock as client:
            client.sendall(GET % (b"/", CLOSE))
            scheme = b"https" if secure else b"http"
            assert scheme + b" ('1.2.3.4', 1000) /" in read_all(client)


def test_a_stranger_cannot_speak_the_proxy_protocol(caplog):
    """A peer that is not trusted is refused, and so is one that says nothing of the kind."""
    with asgi(whole=listening(proxy_protocol=True)) as worker, worker.connect() as sock:
        assert sock.recv(9) == b""
    assert "not in proxy.trusted" in caplog.text
    trusted = listening(proxy_protocol=True, proxy=ProxySettings(trusted=("127.0.0.1",)))
    with asgi(whole=trusted) as worker:
        assert refused(worker, GET % (b"/", b""))


def test_tls_does_not_block():
    """A handshake that does not go on keeps nobody waiting; ALPN says http/1.1."""
    settings = listening(
        tls=True,
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
        http=HttpSettings(header_timeout=1),
    )
    context = ssl.create_default_context(cadata=CERTIFICATE)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with asgi(whole=settings) as worker, worker.connect() as silent:
        silent.sendall(b"\x16\x03\x01")
        with context.wrap_socket(worker.connect(), server_hostname="localhost") as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"
            sock.sendall(GET % (b"/", CLOSE))
            assert b"https (" in read_all(sock)


def test_a_retiring_worker_answers_what_has_begun():
    """Half a head is waited for and answered; a client that has not asked yet gets its answer."""
    with asgi() as worker, worker.connect() as half, worker.connect() as quiet:
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
        assert b"connection: close" in read_all(quiet)
        assert worker.ended()


def endless(events):
    """Return an application of server-sent events without an end; what happens goes to ``events``."""

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


def test_what_has_no_end_is_cancelled_before_the_worker_is_killed(caplog):
    """Then the lifespan's shutdown runs; the log names the request, without a traceback."""
    events = []
    with asgi(endless(events)) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/events", b""))
        assert b"data: x" in sock.recv(65536) + sock.recv(65536)
        worker.retire(within=1.0)
        assert worker.ended()
        assert read_all(sock).endswith(b"data: x\n\n\r\n")
    assert events == ["cancelled", "shutdown"]
    (record,) = caplog.records
    assert "1 requests are still running 0.25 s before" in record.getMessage()
    assert "GET '/events'" in record.getMessage()


def test_a_client_that_reads_nothing_does_not_keep_a_leaving_worker():
    """What it has not taken is given up at the end of the worker's time, and the shutdown runs."""
    events = []

    async def much(scope, receive, send):
        if scope["type"] == "lifespan":
            await endless(events)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 50_000_000})

    with asgi(much) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/much", b""))
        assert sock.recv(10)
        worker.retire(within=1.0)
        assert worker.ended()
    assert events == ["shutdown"]


def test_a_websocket_is_told_before_the_end_of_a_short_drain():
    """However long idle connections might stay: its client is told to come back, not cut off."""
    client = pytest.importorskip("websockets.sync.client")
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
    with asgi() as worker, client.connect(f"ws://127.0.0.1:{worker.address[1]}/") as talks:
        talks.recv()
        worker.retire(linger=60.0, within=1.0)
        with pytest.raises(closed) as caught:
            talks.recv()
        assert caught.value.rcvd.code == 1012
        assert worker.ended()


UPGRADE = b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: close, Upgrade\r\nUpgrade: %b\r\n"
INNER = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("protocol", [b"foo", b"h2c", b"websocket, foo", b"h2c\r\nX: y"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_an_upgrade_that_is_not_spoken_is_ignored(protocol, chunked, step):
    """The body belongs to the request, in whatever pieces it comes, and is no request of its own."""
    body = b"Content-Length: %d\r\n\r\n%b" % (len(INNER), INNER)
    if chunked:
        body = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)
    data = UPGRADE % protocol + body
    with asgi() as worker, worker.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), step):
            sock.sendall(data[at : at + step])
        head, _, text = read_all(sock).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"upgrade" in head  # the application may see what was asked for
        assert text.endswith(b"/a " + INNER)
        assert worker.slot.read(1e18).requests == 1


def test_what_follows_an_upgrade_that_is_not_spoken_is_the_next_request():
    """Pipelined requests that all ask for it are all answered, in their order, whatever their number."""
    one = b"GET /%d HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
    with asgi() as worker:
        answer = worker.ask(b"".join(one % i for i in range(500)) + GET % (b"/last", CLOSE))
    paths = [part.split(b") ")[1].split(b" ")[0] for part in answer.split(b"HTTP/1.1 200 ")[1:]]
    assert paths == [*(b"/%d" % i for i in range(500)), b"/last"]


@pytest.mark.parametrize("target", [b"h:80", b"http://h/", b"/a"])
def test_no_tunnel_is_opened(target):
    """CONNECT is refused: what follows it must not be taken for requests."""
    with asgi() as worker:
        answer = worker.ask(b"CONNECT %b HTTP/1.1\r\nHost: h\r\n\r\n" % target + INNER)
        assert answer.startswith((b"HTTP/1.1 501 ", b"HTTP/1.1 400 "))
        assert answer.count(b"HTTP/1.1") == 1
        assert worker.slot.read(1e18).requests == 0


def test_an_old_client_gets_no_websocket():
    """RFC 9110, 7.8: an Upgrade in HTTP/1.0 is ignored."""
    with asgi() as worker:
        answer = worker.ask(SHAKE.replace(b"HTTP/1.1", b"HTTP/1.0") % b"")
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_trailers_are_dropped(step):
    """They are no headers, of this request or the next, and do not say who the client is."""
    proxy = ProxySettings(trusted=("127.0.0.1",), headers="x-forwarded")
    trailers = b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-User: admin\r\n"
    trailers += b"Expect: 100-continue\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n" + trailers + b"\r\n"
    data = POST + b"X-Forwarded-For: 9.9.9.9\r\n" + chunks + GET % (b"/z", CLOSE)
    with asgi(whole=Settings(proxy=proxy)) as worker, worker.connect() as sock:
        for at in range(0, len(data), step):
            sock.sendall(data[at : at + step])
        first, second = read_all(sock).split(b"HTTP/1.1 200 ")[1:]
    assert b"http ('9.9.9.9', 0) / hi" in first
    assert b"x-names: host x-forwarded-for transfer-encoding\r\n" in first
    assert b"http ('127.0.0.1'" in second
    assert b"x-names: host connection\r\n" in second


def test_too_many_trailers_are_refused():
    """They are counted though they are dropped."""
    chunks = b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    with asgi(max_fields=20) as worker:
        assert (
            worker.ask(POST + chunks + b"a: b\r\n" * 20 + b"\r\n" + GET % (b"/", CLOSE)).count(
                b"HTTP/1.1 200 "
            )
            == 2
        )
        answer = worker.ask(POST + chunks + b"a: b\r\n" * 21 + b"\r\n")
        assert b" 200 " not in answer


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("part", [b"", b"body"])
def test_an_answer_without_a_body_may_tell_its_length(status, part):
    """A Content-Length of 304 is that of what is not sent; nothing follows the head."""

    async def fresh(scope, receive, send):
        headers = [(b"content-length", b"4"), (b"etag", b"x")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": part})

    with asgi(fresh) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b"") + GET % (b"/", CLOSE))
        answer = read_all(sock)
    first, second, rest = answer.split(b"\r\n\r\n")
    assert rest == b""
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert (b"content-length: 4" in head) == (status == 304)
        assert b"transfer-encoding" not in head


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (b"GET", b"Content-Length: 5\r\n"),
        (b"GET", b"Transfer-Encoding: chunked\r\n"),
        (b"GET", b"Cookie: " + b"x" * 10_000 + b"\r\n"),  # more than the WebSocket library takes
        (b"PUT", b"Content-Length: 5\r\n"),
    ],
)
def test_a_handshake_that_cannot_be_taken_is_refused(method, fields, caplog):
    """It is answered, the connection ends and is forgotten, and nobody's log is filled."""
    with asgi() as worker, worker.connect() as sock:
        sock.sendall(method + (SHAKE % fields)[3:])
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
        with worker.connect() as other:
            other.sendall(SHAKE % b"Content-Length: 0\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 101 ")
        worker.retire()
        assert worker.ended()
    assert not caplog.records


def test_a_handshake_behind_a_request_waits_for_nobody():
    """The connection still belongs to the first answer: nothing is mixed into it."""
    with asgi() as worker:
        data = GET % (b"/", b"") + SHAKE % b""
        assert refused(worker, data)


def masked(opcode, payload):
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@pytest.mark.parametrize(
    "frames",
    [
        masked(1, b"\xff"),
        masked(1, b"fine") + masked(1, b"\xff"),
        masked(1, b"fine") + masked(3, b"a reserved opcode"),
        masked(1, b"fine") + b"\x81\x01x",  # not masked
    ],
)
def test_what_any_client_may_send_is_not_logged(frames, caplog):
    """Text that is not UTF-8, or no frame: the connection ends, without a traceback."""
    with asgi() as worker, worker.connect() as sock:
        sock.sendall(SHAKE % b"")
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
        sock.sendall(frames)
        read_all(sock)
        worker.retire()
        assert worker.ended()
    assert not caplog.records


@pytest.mark.parametrize("secure", [False, True])
def test_a_client_that_does_not_read_is_parted_from(secure):
    """While its answer is sent, and behind it: the kernel's patience has no end."""
    settings = listening(
        tls=secure,
        http=HttpSettings(body_timeout=0.3),
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
    )
    ended = threading.Event()

    async def much(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await send({"type": "http.response.start", "status": 200, "headers": []})
        part = {"type": "http.response.body", "body": b"x" * 9_000_000, "more_body": True}
        for _ in range(1 if scope["path"] == "/whole" else 4):
            await send(part)
        await send({"type": "http.response.body", "body": b""})
        ended.set()

    with asgi(much, whole=settings) as worker:
        for path in (b"/whole", b"/parts"):
            sock = worker.connect()
            if secure:
                context = ssl.create_default_context(cadata=CERTIFICATE)
                sock = context.wrap_socket(sock, server_hostname="localhost")
            ended.clear()
            sock.sendall(GET % (path, CLOSE))
            assert ended.wait(20)
            deadline = time.monotonic() + 20
            while worker.slot.read(1e18).connections:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            sock.close()


def test_a_websocket_whose_client_does_not_read_is_parted_from():
    """Little is enough: the application learns of it, as of any client that is gone."""
    told = threading.Event()

    async def talks(scope, receive, send):
        if scope["type"] != "websocket":
            raise RuntimeError  # no lifespan
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": b"x" * 9_000_000})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        told.set()

    with asgi(talks, body_timeout=0.3) as worker, worker.connect() as sock:
        sock.sendall(SHAKE % b"")
        assert told.wait(20)


def test_a_client_that_reads_slowly_is_waited_for():
    """Enough in each body_timeout is enough."""

    async def much(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 12_000_000})

    with asgi(much, body_timeout=0.3, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", CLOSE))
        size = 0
        while piece := sock.recv(400_000):
            size += len(piece)
            time.sleep(0.03)
        assert size > 12_000_000


def test_a_body_must_come_at_a_pace_all_the_time():
    """Much at the beginning does not pay for bytes one by one afterwards."""
    told = threading.Event()

    async def reads(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    with asgi(reads, body_timeout=0.3, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(POST + b"Content-Length: 900000\r\n\r\n" + b"x" * 500_000)
        while not told.wait(0.05):
            with contextlib.suppress(OSError):
                sock.sendall(b"x")


def test_a_client_that_waits_for_100_is_not_late():
    """The application has not asked for the body yet."""

    async def slow(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError  # no lifespan
        await asyncio.sleep(1)
        await show(scope, receive, send)

    head = POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n" + CLOSE + b"\r\n"
    with asgi(slow, body_timeout=0.2) as worker, worker.connect() as sock:
        sock.sendall(head)
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"abc")
        assert read_all(sock).endswith(b"/ abc")


def test_a_websocket_is_no_request_that_is_late():
    """It talks, does not count as busy, and is told to come back when the worker leaves."""
    client = pytest.importorskip("websockets.sync.client")
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
    with asgi() as worker, client.connect(f"ws://127.0.0.1:{worker.address[1]}/") as talks:
        assert talks.recv().startswith("ws ('127.0.0.1'")
        talks.send("hello")
        assert talks.recv() == "HELLO"
        assert worker.slot.read(1e18).busy_since is None
        worker.retire()
        with pytest.raises(closed) as caught:
            talks.recv()
        assert caught.value.rcvd.code == 1012
        assert worker.ended()


def test_a_websocket_may_be_silent():
    """The times of requests are not its own."""
    client = pytest.importorskip("websockets.sync.client")
    how = {"header_timeout": 0.1, "keep_alive": 0.1, "body_timeout": 0.1}
    with asgi(**how) as worker, client.connect(f"ws://127.0.0.1:{worker.address[1]}/") as talks:
        talks.recv()
        with pytest.raises(TimeoutError):
            talks.recv(0.5)
        talks.send("still here")
        assert talks.recv() == "STILL HERE"


def test_a_websocket_through_a_proxy(tmp_path):
    """The client is the one that the PROXY protocol names, and the access log says 101."""
    client = pytest.importorskip("websockets.sync.client")
    settings = Settings(
        listen=(ListenSettings(name="test", proxy_protocol=True),),
        proxy=ProxySettings(trusted=("127.0.0.1",)),
        access_log=AccessLogSettings(target=str(tmp_path / "log")),
    )
    with asgi(whole=settings) as worker:
        sock = worker.connect()
        sock.sendall(V1)
        with client.connect("ws://localhost/", sock=sock) as talks:
            assert talks.recv() == "ws ('1.2.3.4', 1000)"
    assert "1.2.3.4 - - " in (tmp_path / "log").read_text()
    assert " 101 " in (tmp_path / "log").read_text()
