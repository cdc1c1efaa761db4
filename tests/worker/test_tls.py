"""TLS: certificates as they are found, and a socket that never blocks."""

import os
import socket
import ssl

import pytest

from preforkd.config.settings import TlsSettings
from preforkd.errors import ConfigurationError
from preforkd.worker import tls
from tests.worker.certificate import CERTIFICATE, KEY


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("/nowhere.pem", "", "tls.certificate: /nowhere.pem: No such file"),
        (CERTIFICATE, "/nowhere.key", "tls.key: /nowhere.key: No such file"),
        (CERTIFICATE, "", "tls.certificate: certificate and key cannot be used"),
        ("-----BEGIN NONSENSE", KEY, "tls.certificate: certificate and key cannot be used"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(certificate, key, said):
    """With the setting, before anything is served."""
    with pytest.raises(ConfigurationError, match=said):
        tls.server_context(TlsSettings(certificate=certificate, key=key))


def test_only_a_regular_file_is_read(tmp_path):
    """A FIFO would be waited for, a device has no end: neither is opened to be read."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ConfigurationError, match=r"tls.certificate: .*/fifo: not a regular file"):
        tls.server_context(TlsSettings(certificate=str(fifo)))
    with pytest.raises(ConfigurationError, match=r"tls.key: /dev/zero: not a regular file"):
        tls.server_context(TlsSettings(certificate=CERTIFICATE, key="/dev/zero"))
    with pytest.raises(ConfigurationError, match="not a regular file"):
        tls.server_context(TlsSettings(certificate=str(tmp_path)))


def test_what_cannot_be_used_is_named_by_its_file(tmp_path):
    """Both where there are two; the text of a credential is in no message."""
    for name, text in (("c.pem", CERTIFICATE), ("k.pem", "no key")):
        (tmp_path / name).write_text(text)
    certificate, key = str(tmp_path / "c.pem"), str(tmp_path / "k.pem")
    with pytest.raises(ConfigurationError) as caught:
        tls.server_context(TlsSettings(certificate=certificate, key=key))
    assert f"({certificate} and {key})" in caught.value.message
    with pytest.raises(ConfigurationError) as caught:
        tls.server_context(TlsSettings(certificate=certificate))
    assert f"({certificate})" in caught.value.message
    with pytest.raises(ConfigurationError) as caught:
        tls.server_context(TlsSettings(certificate=CERTIFICATE, key="-----BEGIN NONSENSE"))
    assert "(a credential)" in caught.value.message


@pytest.fixture
def ends():
    """Our end, not yet shaken hands on, and the client's, over a socket pair."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    made = ssl.create_default_context(cadata=CERTIFICATE)
    client = made.wrap_socket(theirs, server_hostname="localhost", do_handshake_on_connect=False)
    server = tls.TlsSocket(ours, tls.server_context(TlsSettings(certificate=CERTIFICATE, key=KEY)))
    yield server, client
    server.close()
    client.close()


def shake_hands(server, client):
    """Let both make their steps in turn until both have done."""
    client.setblocking(False)
    done = [False, False]
    while not all(done):
        done[0] = done[0] or server.handshake()
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            continue
        done[1] = True
    client.settimeout(20)


def test_a_handshake_goes_step_by_step(ends):
    """No step waits for the client; nothing is read before it is done."""
    server, client = ends
    assert not server.handshake()
    assert not server.wants_write
    shake_hands(server, client)
    with pytest.raises(BlockingIOError):
        server.recv(10)
    client.sendall(b"hello")
    assert server.recv(3) == b"hel"
    assert server.has_decrypted()
    assert server.recv(10) == b"lo"
    assert not server.has_decrypted()
    assert server.send(b"bye") == 3
    assert client.recv(10) == b"bye"


def test_a_client_that_reads_nothing_blocks_nobody(ends):
    """What there is no room for is to be sent later."""
    server, client = ends
    shake_hands(server, client)
    sent = 0
    try:
        while sent < 1 << 30:
            sent += server.send(b"x" * 65536)
    except BlockingIOError:
        return
    raise AssertionError(f"{sent} bytes found room in a socket")


def test_the_end_is_said(ends):
    """A goodbye before the end, so that a client knows that nothing was cut off; one without is an end, too."""
    server, client = ends
    shake_hands(server, client)
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""  # and no SSLEOFError
    client.close()
    assert server.recv(1) == b""


def test_an_abandoned_copy_says_nothing(ends):
    """In a process that was forked from the worker: the connection is its parent's, and goes on there."""
    server, client = ends
    shake_hands(server, client)
    parents = os.dup(server.fileno())
    try:
        server.close_after_fork()
        client.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            client.recv(1)
    finally:
        os.close(parents)
