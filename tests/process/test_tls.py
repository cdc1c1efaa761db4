"""TLS of a running program: certificates change by a reload, and nobody notices."""

import os
import signal
import socket
import ssl
import threading

import pytest

from tests.process.service import HERE, free_port
from tests.worker.certificate import (
    CERTIFICATE,
    CLIENT_CA,
    CLIENT_CERTIFICATE,
    CLIENT_KEY,
    ENCRYPTED_KEY,
    KEY,
    OTHER_CERTIFICATE,
    OTHER_KEY,
    PASSWORD,
)

GET = b"GET /?id=1 HTTP/1.1\r\nHost: localhost\r\n%b\r\n"


@pytest.fixture
def serving(service):
    service.port = free_port()
    service.certificate, service.key = service.folder / "chain.pem", service.folder / "key.pem"
    service.certificate.write_text(CERTIFICATE)
    service.key.write_text(KEY)
    service.configure(
        f"app: {{target: 'wsgi:echo:application', directory: {HERE}}}\n"
        f"listen: [{{address: 127.0.0.1:{service.port}, tls: true}}]\nworkers: 2\n"
        f"tls: {{certificate: {service.certificate}, key: {service.key}}}\n"
    )
    return service.start("--config", str(service.config))


def connect(service):
    """Return a connection, verified against no other than the two certificates."""
    context = ssl.create_default_context(cadata=CERTIFICATE + OTHER_CERTIFICATE)
    sock = socket.create_connection(("127.0.0.1", service.port), timeout=30)
    return context.wrap_socket(sock, server_hostname="localhost")


def ask(sock, more=b"Connection: close\r\n"):
    """Send a request and return what comes of the answer's first bytes."""
    sock.sendall(GET % more)
    return sock.recv(65536)


def shown(service):
    """Return the certificate that a new connection is shown, having been answered."""
    with connect(service) as sock:
        assert ask(sock).startswith(b"HTTP/1.1 200 ")
        return ssl.DER_cert_to_PEM_cert(sock.getpeercert(True))


def reload_by_signal(service):
    """Send SIGHUP, and return when the reload has ended, well or not."""
    service.manager.forget()
    service.process.send_signal(signal.SIGHUP)
    service.manager.wait_for("RELOADING", "1")
    service.manager.wait_for("READY", "1")


def test_a_new_certificate_is_used_from_a_reload_on(serving):
    """SIGHUP: none that comes meanwhile is lost, all later ones see the new one, kept ones end in order."""
    certificates, failures, stop = set(), [], threading.Event()

    def come_and_go():
        while not stop.is_set():
            try:
                certificates.add(shown(serving))
            except (OSError, AssertionError) as error:
                failures.append(error)

    assert shown(serving) == CERTIFICATE
    thread = threading.Thread(target=come_and_go)
    with connect(serving) as kept:
        assert ask(kept, b"").startswith(b"HTTP/1.1 200 ")
        thread.start()
        try:
            serving.certificate.write_text(OTHER_CERTIFICATE)
            serving.key.write_text(OTHER_KEY)
            reload_by_signal(serving)
            serving.until(lambda status: len(status["generations"]) == 1)
        finally:
            stop.set()
            thread.join(60)
        assert not thread.is_alive()
        assert not failures
        assert {shown(serving) for _ in range(20)} == {OTHER_CERTIFICATE}
        assert certificates <= {CERTIFICATE, OTHER_CERTIFICATE}
        # The kept connection was told of its end by TLS, not reset.
        assert kept.recv(65536) == b""


def test_a_certificate_that_cannot_be_used_changes_nothing(serving):
    """A key that does not fit: the reload fails, the log says why, and the old one is served."""
    serving.key.write_text(OTHER_KEY)
    reload_by_signal(serving)
    assert "tls.certificate" in serving.log
    assert {shown(serving) for _ in range(10)} == {CERTIFICATE}
    assert serving.status()["ready"] == 2


def test_a_worker_is_replaced_without_the_files(serving):
    """They are read once for a generation: a renewal that is not complete yet stops no worker."""
    serving.key.unlink()
    serving.certificate.write_text("half a certificate")
    old = serving.workers()
    os.kill(old[0], signal.SIGKILL)
    serving.until(lambda _: len(set(serving.workers()) - {old[0]}) == 2)
    assert {shown(serving) for _ in range(10)} == {CERTIFICATE}
    assert serving.status()["generations"][0]["generation"] == 1


def test_a_session_is_resumed_by_each_worker(serving):
    """A client that comes back to another worker needs no whole handshake."""
    with connect(serving) as first:
        assert ask(first).startswith(b"HTTP/1.1 200 ")
        session, context = first.session, first.context
    for _ in range(40):
        sock = socket.create_connection(("127.0.0.1", serving.port), timeout=30)
        with context.wrap_socket(sock, server_hostname="localhost", session=session) as sock:
            assert ask(sock).startswith(b"HTTP/1.1 200 ")
            assert sock.session_reused
    assert all(row["requests"] > 0 for row in serving.status()["workers"])


def change_tls(service, section):
    """Write another section tls, and reload; return what preforkctl reports."""
    lines = service.config.read_text().splitlines()
    service.configure("\n".join([*lines[:-1], f"tls: {section}"]))
    return service.control("reload")


def test_an_authority_that_cannot_be_used_changes_nothing(serving):
    """The reload fails with the place and a hint; clients are served as before."""
    pair = f"certificate: {serving.certificate}, key: {serving.key}"
    reload = change_tls(serving, f"{{{pair}, verify: required, client_ca: {serving.key}}}")
    assert reload.returncode == 78
    place = f"preforkd.yaml:4:{len(f'tls: {{{pair}, verify: required, client_ca: ') + 1}"
    assert f"{place}: tls.client_ca: it has no certificate ({serving.key})" in reload.stderr
    assert "hint: a PEM file" in reload.stderr
    assert shown(serving) == CERTIFICATE


def test_certificates_of_clients_are_required_from_a_reload_on(serving):
    """With an encrypted key, too: a client with a certificate is served, one without is not."""
    serving.key.write_text(ENCRYPTED_KEY)
    (serving.folder / "ca.pem").write_text(CLIENT_CA)
    (serving.folder / "client.pem").write_text(CLIENT_CERTIFICATE + CLIENT_KEY)
    section = (
        f"{{certificate: {serving.certificate}, key: {serving.key}, key_password: {PASSWORD}, "
        f"client_ca: {serving.folder}/ca.pem, verify: required, minimum_version: 1.3}}"
    )
    reload = change_tls(serving, section)
    assert reload.returncode == 0, reload.stderr
    context = ssl.create_default_context(cadata=CERTIFICATE)
    for own, served in (("", False), (f"{serving.folder}/client.pem", True)):
        if own:
            context.load_cert_chain(own)
        sock = socket.create_connection(("127.0.0.1", serving.port), timeout=30)
        try:
            with context.wrap_socket(sock, server_hostname="localhost") as sock:
                answer = ask(sock)
        except OSError:  # the alert of TLS, or a reset
            answer = b""
        assert answer.startswith(b"HTTP/1.1 200 ") is served


STREAM = """
import os

def handle(connection, peer):
    connection.sendall(f"{type(connection).__name__} {peer[0]} {os.getpid()} ".encode())
    connection.sendall(connection.recv(100))
"""
HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"


@pytest.fixture
def streaming(service):
    service.port = free_port()
    (service.folder / "streaming.py").write_text(STREAM)
    (service.folder / "chain.pem").write_text(CERTIFICATE + KEY)
    service.configure(
        f"app: {{target: 'stream:streaming:handle', directory: {service.folder}}}\n"
        f"listen: [{{address: 127.0.0.1:{service.port}, tls: true, proxy_protocol: true}}]\n"
        f"workers: 1\ntls: {{certificate: {service.folder}/chain.pem}}\n"
        "proxy: {trusted: [127.0.0.1]}\n"
    )
    return service.start("--config", str(service.config))


def test_streams_speak_tls_and_the_proxy_protocol(streaming):
    """The handler has a TLS socket and the client as its peer; one that is slow holds nobody up."""
    with socket.create_connection(("127.0.0.1", streaming.port)) as slow:
        slow.sendall(HEADER[:9])
        for _ in range(3):
            sock = socket.create_connection(("127.0.0.1", streaming.port), timeout=30)
            sock.sendall(HEADER)
            context = ssl.create_default_context(cadata=CERTIFICATE)
            with context.wrap_socket(sock, server_hostname="localhost") as sock:
                sock.sendall(b"hello")
                (pid,) = streaming.workers()
                assert sock.recv(100) == f"SSLSocket 192.0.2.7 {pid} ".encode()
                assert sock.recv(100) == b"hello"
                assert sock.recv(100) == b""


def test_a_zygote_from_a_stream_worker_leaves_its_clients_alone(streaming):
    """Reforked while a client's TLS handshake is to come: that worker goes on with it."""
    (worker,) = streaming.workers()
    sock = socket.create_connection(("127.0.0.1", streaming.port), timeout=30)
    sock.sendall(HEADER)
    streaming.until(lambda status: status["workers"][0]["connections"] == 1)
    assert streaming.control("refork").returncode == 0
    context = ssl.create_default_context(cadata=CERTIFICATE)
    with context.wrap_socket(sock, server_hostname="localhost") as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == f"SSLSocket 192.0.2.7 {worker} ".encode()
        assert sock.recv(100) == b"hello"
        assert sock.recv(100) == b""
    streaming.until(lambda status: streaming.workers() not in ([], [worker]))
    assert streaming.stop() == 0
