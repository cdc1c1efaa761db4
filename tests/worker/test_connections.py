"""How connections begin and what surrounds the application: TLS, proxies, health, files, limits."""

import contextlib
import os
import socket
import ssl
import struct
import tempfile
import threading
import time

import pytest

from preforkd.config.settings import (
    HttpSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from preforkd.ipc import messages
from tests.http.attacks import ATTACKS
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all, read_answer, serving

GET = b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n"
CLOSE = b"Connection: close\r\n"


def show(environ, start_response):
    """Answer with what the environ says of the client, and the body."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    names = ("wsgi.url_scheme", "REMOTE_ADDR", "REMOTE_PORT", "PATH_INFO")
    shown = " ".join(str(environ.get(name)) for name in names)
    return [shown.encode() + b" " + environ["wsgi.input"].read()]


def listening(**how):
    """Settings whose one listener, the test's, is like this."""
    sections = {name: how.pop(name) for name in ("tls_section", "proxy", "http") if name in how}
    return Settings(
        listen=(ListenSettings(address="", name="test", **how),),
        tls=sections.get("tls_section", TlsSettings()),
        proxy=sections.get("proxy", ProxySettings()),
        http=sections.get("http", HttpSettings()),
    )


SECURE = listening(tls=True, tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY))


def client_context():
    context = ssl.create_default_context(cadata=CERTIFICATE)
    context.set_alpn_protocols(["http/1.1"])
    return context


def secured(worker, **how):
    return client_context().wrap_socket(worker.connect(), server_hostname="localhost", **how)


def test_tls():
    """Requests, kept connections and large bodies both ways; ALPN says http/1.1."""
    size = 3_000_000

    def large(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("X-Scheme", environ["wsgi.url_scheme"])])
        return [body]

    with serving(large, whole=SECURE) as worker, secured(worker) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
        for _ in range(3):
            sock.sendall(GET % (b"/", b""))
            assert "X-Scheme: https" in read_answer(sock)[0]
        data = os.urandom(size)
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + data)
        assert read_answer(sock)[1] == data
        sock.sendall(GET % (b"/", b"") * 40)  # in one record, pipelined
        answers = b""
        while answers.count(b"X-Scheme: https") < 40 or not answers.endswith(b"\r\n\r\n"):
            answers += sock.recv(65536)
        sock.sendall(GET % (b"/", CLOSE))
        assert b"200 OK" in read_all(sock)  # and a clean end: no SSLEOFError


def test_a_handshake_blocks_nobody():
    """Those who connect and say nothing, or half of it, or nonsense, do not keep others waiting."""
    with serving(show, whole=SECURE) as worker:
        silent = [worker.connect() for _ in range(20)]
        silent[3].sendall(b"\x16\x03\x01")
        silent[4].sendall(GET % (b"/", b""))
        with secured(worker) as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert b"200 OK" in read_all(sock)
        for sock in silent:
            sock.close()


@pytest.mark.parametrize("proxied", [False, True])
def test_who_resets_before_the_handshake_ends_nothing(proxied, caplog):
    """Accepted when it has gone already, with TLS and behind the PROXY protocol: the others are served."""
    held, go = threading.Event(), threading.Event()

    def hold(environ, start_response):
        if environ["PATH_INFO"] == "/hold":
            held.set()
            assert go.wait(20)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    tls = TlsSettings(certificate=CERTIFICATE, key=KEY)
    trusted = ProxySettings(trusted=("127.0.0.1",))
    settings = listening(tls=True, tls_section=tls, proxy_protocol=proxied, proxy=trusted)
    handshake = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n" if proxied else b""

    def enter(worker):
        plain = worker.connect()
        plain.sendall(handshake)
        return client_context().wrap_socket(plain, server_hostname="localhost")

    with serving(hold, whole=settings) as worker, enter(worker) as sock:
        sock.sendall(GET % (b"/hold", CLOSE))
        assert held.wait(20)
        for number in range(30):
            gone = worker.connect()
            gone.sendall(handshake + b"\x16\x03\x01"[: number % 4])
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
        go.set()
        assert b"200 OK" in read_all(sock)
        with enter(worker) as other:
            other.sendall(GET % (b"/", CLOSE))
            assert b"200 OK" in read_all(other)
        deadline = time.monotonic() + 20
        while worker.slot.liveness()[1]:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_file_over_tls():
    """sendfile(2) does not encrypt: the file is read and sent."""
    with tempfile.TemporaryFile() as file:
        data = os.urandom(2_000_000)
        file.write(data)

        def send(environ, start_response):
            file.seek(0)
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](os.fdopen(os.dup(file.fileno()), "rb"))

        with serving(send, whole=SECURE) as worker, secured(worker) as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert read_all(sock).endswith(data)


@pytest.mark.parametrize("whole", [None, SECURE], ids=["plain", "tls"])
def test_a_file_that_becomes_shorter_is_told(tmp_path, caplog, whole):
    """Its length was promised: the client is cut off, and the log names the file and what is missing."""
    path = tmp_path / "download"
    path.write_bytes(bytes(20_000_000))

    def send(environ, start_response):
        start_response("200 OK", [("Content-Length", "20000000")])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with serving(send, whole=whole) as worker:
        with secured(worker) if whole else worker.connect() as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert sock.recv(100)
            os.truncate(path, 0)
            taken = len(read_all(sock))
        assert taken < 20_000_000
        told = [text for text in caplog.messages if "was truncated while it was sent" in text]
    assert len(told) == 1
    assert told[0].startswith(f"{path} was sent incompletely, ")


def refused(worker, data):
    """Tell whether the connection ends without an answer."""
    try:
        return worker.ask(data) == b""
    except OSError:
        return True


PROXIED = listening(proxy_protocol=True, proxy=ProxySettings(trusted=("127.0.0.1",)))


def test_the_proxy_protocol():
    """The client is the one that the trusted proxy names, in one piece with the request or before it."""
    with serving(show, whole=PROXIED) as worker:
        header = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n"
        assert b"http 1.2.3.4 1000 /x" in worker.ask(header + GET % (b"/x", CLOSE))
        with worker.connect() as sock:
            sock.sendall(header[:10])
            assert b"http 127.0.0.1 " in worker.ask(b"PROXY UNKNOWN\r\n" + GET % (b"/", CLOSE))
            sock.sendall(header[10:])
            sock.sendall(GET % (b"/y", CLOSE))
            assert b"http 1.2.3.4 1000 /y" in read_all(sock)
        assert refused(worker, GET % (b"/", CLOSE))


def test_the_proxy_protocol_before_tls():
    """As a load balancer in front of TLS sends it."""
    settings = listening(
        tls=True,
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
        proxy_protocol=True,
        proxy=ProxySettings(trusted=("127.0.0.1",)),
    )
    with serving(show, whole=settings) as worker, worker.connect() as plain:
        plain.sendall(b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n")
        with client_context().wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(GET % (b"/", CLOSE))
            assert b"https 1.2.3.4 1000 /" in read_all(sock)


def test_a_stranger_cannot_speak_the_proxy_protocol(caplog):
    """A peer that is not trusted is refused, and the log says so."""
    settings = listening(proxy_protocol=True, proxy=ProxySettings(trusted=("10.0.0.1",)))
    with serving(show, whole=settings) as worker:
        assert refused(worker, b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n" + GET % (b"/", CLOSE))
    assert "not in proxy.trusted" in caplog.text


@pytest.mark.parametrize(
    ("trusted", "client"), [("127.0.0.0/8", b"1.2.3.4"), ("10.0.0.1", b"127.0.0.1")]
)
def test_forwarded_headers_count_from_trusted_peers_only(trusted, client):
    """From others, the application is told who really connected."""
    proxy = ProxySettings(trusted=(trusted,), headers="x-forwarded")
    with serving(show, whole=listening(proxy=proxy)) as worker:
        for _ in range(3):
            answer = worker.ask(GET % (b"/", b"X-Forwarded-For: 1.2.3.4\r\n" + CLOSE))
            assert b"http %b " % client in answer


def test_health():
    """Answered without the application; readiness fails while the worker is to leave soon."""

    def never(environ, start_response):
        raise AssertionError

    http = HttpSettings(healthy="/-/healthy", ready="/-/ready")
    with serving(never, whole=Settings(http=http)) as worker, worker.connect() as sock:
        for path in (b"/-/healthy", b"/-/ready", b"/-/ready?x=1"):
            for _ in range(3):
                sock.sendall(GET % (path, b""))
                head, body = read_answer(sock)
                assert " 200 " in head
                assert body == b"ok\n"
        worker.master.send(messages.DrainNotice())
        while " 200 " in head:
            sock.sendall(GET % (b"/-/ready", b""))
            head, body = read_answer(sock)
        assert " 503 " in head
        sock.sendall(GET % (b"/-/healthy", b""))
        assert " 200 " in read_answer(sock)[0]
        assert worker.ask(b"HEAD" + (GET % (b"/-/ready", CLOSE))[3:]).endswith(b"\r\n\r\n")


def test_a_file_is_sent_and_then_closed():
    """By its descriptor, from where it stands; closed when the slow client has all of it."""
    with tempfile.TemporaryFile() as file:
        data = os.urandom(20_000_000)
        file.write(data)
        file.flush()
        closed = threading.Event()

        def send(environ, start_response):
            file.seek(10)
            start_response("200 OK", [("Content-Length", str(len(data) - 10))])
            wrapper = environ["wsgi.file_wrapper"](file)
            wrapper.close = closed.set
            return wrapper

        with serving(send) as worker, worker.connect() as sock:
            sock.sendall(GET % (b"/", b""))
            assert sock.recv(100)
            assert not closed.is_set()
            assert worker.ask(b"HEAD" + (GET % (b"/", CLOSE))[3:]).endswith(b"\r\n\r\n")
            closed.clear()
            sock.sendall(GET % (b"/", CLOSE))
            assert data[-1000:] in read_all(sock)
            assert closed.wait(20)
        closed.clear()
        with serving(send) as worker:
            with worker.connect() as sock:
                sock.sendall(GET % (b"/", b""))
                sock.recv(10)
            assert closed.wait(20)  # also when the client leaves


def test_one_connection_has_so_many_requests():
    """The last one is answered with Connection: close."""
    with serving(show, max_requests=3) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b"") * 5)
        answers = read_all(sock)
        assert answers.count(b"200 OK") == 3
        assert answers.count(b"Connection: close") == 1


def test_who_sends_ahead_does_not_keep_others_waiting():
    """Between the requests of a flood that has arrived, another client has its turn."""
    order = []
    held, flood_is_there, both_have_asked = threading.Event(), threading.Event(), threading.Event()

    def note(environ, start_response):
        order.append(environ["PATH_INFO"])
        if order[-1] == "/hold":
            held.set()
            flood_is_there.wait(20)
        elif order[-1] == "/flood":
            both_have_asked.wait(20)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    with serving(note) as worker, worker.connect() as flood, worker.connect() as other:
        for sock in (flood, other):
            sock.sendall(GET % (b"/", b""))
            read_answer(sock)
        with worker.connect() as holder:
            holder.sendall(GET % (b"/hold", b""))
            assert held.wait(20)
            flood.sendall(GET % (b"/flood", b"") * 300)
            flood_is_there.set()
            while "/flood" not in order:
                assert worker.thread.is_alive()
            other.sendall(GET % (b"/other", b""))
            both_have_asked.set()
            read_answer(other)
        answers = b""
        while answers.count(b"200 OK") < 300:
            answers += flood.recv(1 << 20)
    assert order.index("/other") < 50


def test_events_reach_the_client_one_by_one():
    """Each part of a stream is there before the application makes the next."""
    go = threading.Semaphore(0)

    def stream(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        for number in range(3):
            yield b"data: %d\n\n" % number
            assert go.acquire(timeout=20)

    with serving(stream) as worker, worker.connect() as sock:
        sock.sendall(GET % (b"/", b""))
        data = b""
        for number in range(3):
            while b"data: %d" % number not in data:
                data += sock.recv(1000)
            go.release()
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(1000)


def test_a_body_must_come_at_a_pace():
    """One that keeps trickling below http.min_rate is given up once body_timeout has passed."""
    with serving(show, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < begun + 20
                sock.sendall(b"x")
                threading.Event().wait(0.02)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_must_come_at_a_pace_all_the_time(chunked):
    """Much at the beginning does not pay for bytes one by one afterwards."""
    head, part = b"Content-Length: 900000\r\n\r\n" + b"x" * 500_000, b"x"
    if chunked:
        head = b"Transfer-Encoding: chunked\r\n\r\n7a120\r\n" + b"x" * 500_000 + b"\r\n"
        part = b"1\r\nx\r\n"
    with serving(show, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\n" + head)
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < begun + 20
                sock.sendall(part)
                threading.Event().wait(0.02)


def test_a_body_that_comes_at_the_pace_is_waited_for():
    """Window after window."""
    with serving(show, body_timeout=0.2, min_rate=1000) as worker, worker.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n")
        for _ in range(40):
            sock.sendall(b"x" * 100)
            threading.Event().wait(0.02)
        assert b"200 OK" in sock.recv(1000)


def test_bodies_of_one_worker_have_room_together(caplog):
    """Who finds none is answered with 503, told once; the room is there again when a client is gone."""
    settings = Settings(http=HttpSettings(spool=10, max_body=1000, spool_total=1000))
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\nConnection: close\r\n\r\n"
    with serving(show, whole=settings) as worker:

        def ask_until(status):
            deadline = time.monotonic() + 20
            while not worker.ask(head + b"x" * 900).startswith(b"HTTP/1.1 %d " % status):
                assert time.monotonic() < deadline  # the other was not read, or not missed, yet

        with worker.connect() as slow:
            slow.sendall(head + b"x" * 800)
            ask_until(503)
            ask_until(503)
        ask_until(200)
    assert caplog.text.count("request bodies use all of http.spool_total") == 1


def test_a_disk_that_is_full_fails_one_request(monkeypatch, caplog):
    """503, and the next request is served."""

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preforkd.http.body.tempfile.TemporaryFile", full)
    with serving(show, spool=10) as worker:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n"
        assert worker.ask(head + b"x" * 20).startswith(b"HTTP/1.1 503 ")
        assert b"200 OK" in worker.ask(GET % (b"/", CLOSE))
    assert "No space left" in caplog.text


def test_the_server_can_be_silent_about_itself():
    """http.server empty: no Server header."""
    with serving(show, server="") as worker:
        assert b"Server" not in worker.ask(GET % (b"/", CLOSE))
        assert b"Server" not in worker.ask(b"NONSENSE\r\n\r\n")


def test_options_for_the_server():
    """OPTIONS * reaches the application."""
    with serving(show) as worker:
        assert b"200 OK" in worker.ask(
            b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )


@pytest.mark.parametrize("step", [1 << 20, 1])
def test_the_attack_table_over_the_wire(step):
    """Each attack gets one answer with its status, or is waited for; the application never runs."""
    ran = []

    def application(environ, start_response):
        ran.append(environ["REQUEST_URI"])
        start_response("200 OK", [])
        return [b"served"]

    bounds = {"max_line": 512, "max_field": 700, "max_header": 1024, "max_fields": 20}
    attacks = [one for one in ATTACKS if one[2] is not None][:: 1 if step > 1 else 5]
    with serving(application, max_body=1000, spool=100, **bounds) as worker:
        for name, data, status in attacks:
            ran.clear()
            with worker.connect() as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answer = b""
                try:
                    for at in range(0, len(data), step):
                        sock.sendall(data[at : at + step])
                    sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it was refused before it was complete
                answer = read_all(sock)
            assert answer.startswith(b"HTTP/1.1 %b " % status.encode()), name
            assert answer.count(b"HTTP/1.1 ") == 1, name
            assert len(ran) == (status == "200"), name
