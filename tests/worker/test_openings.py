"""Openings: admission, the PROXY header and the TLS handshake, on real sockets."""

import contextlib
import select
import socket
import ssl

import pytest

from preforkd.config.settings import TlsSettings
from preforkd.http.forwarded import Trust
from preforkd.http.proxy_header import ProxyHeaderError
from preforkd.worker import tls
from preforkd.worker.openings import Opening, admits
from tests.worker.certificate import CERTIFICATE, KEY

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"


@pytest.fixture
def ends():
    """Our end, and the client's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture(scope="module")
def context():
    return tls.server_context(TlsSettings(certificate=CERTIFICATE, key=KEY), ())


class TlsClient:
    """The client's side of a handshake, whose bytes the test carries."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        made = ssl.create_default_context(cadata=CERTIFICATE)
        self.object = made.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def advance(self, received: bytes = b"") -> bytes:
        """Take the server's bytes; return what to send."""
        self.incoming.write(received)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.object.do_handshake()
        return self.outgoing.read()


def step_to_the_end(opening):
    while opening.step():
        select.select([opening.sock], [], [], 20)


def fill(sock):
    """Send until there is no room; return the bytes sent."""
    sent = 0
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(b"x" * 65536)
    return sent


@pytest.mark.parametrize(("remote", "named"), [("192.0.2.1", "192.0.2.1"), ("", "unix")])
def test_only_trusted_peers_are_admitted(remote, named, caplog):
    """The refused one is logged once; a trusted one is not."""
    assert not admits(Trust(["10.0.0.0/8"]), remote)
    assert [record.message for record in caplog.records] == [
        f"connection from {named} refused: not in proxy.trusted"
    ]
    caplog.clear()
    assert admits(Trust(["10.0.0.0/8", "192.0.2.1", "unix"]), remote)
    assert not caplog.records


def test_a_header_is_awaited_byte_by_byte_and_nothing_behind_it_is_taken(ends):
    """On a blocking socket as well: each step returns at once."""
    ours, theirs = ends
    opening = Opening(ours, proxied=True, context=None)
    assert opening.step() == select.EPOLLIN
    for byte in HEADER[:-1]:
        theirs.sendall(bytes([byte]))
        select.select([ours], [], [], 20)
        assert opening.step() == select.EPOLLIN
    theirs.sendall(HEADER[-1:] + b"GET /")
    select.select([ours], [], [], 20)
    assert opening.step() == 0
    assert opening.source == ("192.0.2.7", "4711")
    assert opening.sock is ours
    assert opening.secure is None
    assert ours.recv(100) == b"GET /"


def test_the_proxys_own_check_names_no_client(ends):
    """The command LOCAL of version 2."""
    ours, theirs = ends
    theirs.sendall(LOCAL)
    select.select([ours], [], [], 20)
    opening = Opening(ours, proxied=True, context=None)
    assert opening.step() == 0
    assert opening.source is None


@pytest.mark.parametrize(
    ("data", "error"),
    [(HEADER[:10], ConnectionResetError), (b"GET / HTTP/1.1\r\n", ProxyHeaderError)],
)
def test_half_a_header_and_none_end_the_opening(ends, data, error):
    """A proxy that leaves is noticed at once, and a peer that sends something else."""
    ours, theirs = ends
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    opening = Opening(ours, proxied=True, context=None)
    with pytest.raises(error):
        step_to_the_end(opening)


def test_tls_begins_behind_the_header(ends, context):
    """A ClientHello in the same segment is not lost; the socket is the TLS one afterwards."""
    ours, theirs = ends
    opening = Opening(ours, proxied=True, context=context)
    client = TlsClient()
    theirs.sendall(HEADER + client.advance())
    while event := opening.step():
        assert event == select.EPOLLIN
        theirs.setblocking(False)
        try:
            received = theirs.recv(65536)
        except BlockingIOError:
            received = b""
        theirs.setblocking(True)
        if answer := client.advance(received):
            theirs.sendall(answer)
        select.select([opening.sock], [], [], 20)
    assert opening.source == ("192.0.2.7", "4711")
    assert isinstance(opening.sock, ssl.SSLSocket)
    assert opening.secure is not None
    assert opening.secure.socket is opening.sock
    opening.sock.close()


def test_a_handshake_that_finds_no_room_waits_until_it_can_send(ends, context):
    """The event is the one of writing; when the client has read, the handshake goes on."""
    ours, theirs = ends
    filled = fill(ours)
    opening = Opening(ours, proxied=False, context=context)
    theirs.sendall(TlsClient().advance())
    select.select([ours], [], [], 20)
    assert opening.step() == select.EPOLLOUT
    while filled > 0:
        filled -= len(theirs.recv(min(filled, 65536)))
    select.select([], [opening.sock], [], 20)
    assert opening.step() == select.EPOLLIN
    assert theirs.recv(1) == b"\x16"  # a handshake record: the ServerHello
    opening.sock.close()
