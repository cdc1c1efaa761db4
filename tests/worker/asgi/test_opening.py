"""The PROXY header before HTTP and TLS in the event loop."""

import ssl

import pytest

from preforkd.config.settings import (
    ProxySettings,
    TlsSettings,
)
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    V1,
    V2,
    closed_without_answer,
    listener_settings,
    serving_asgi,
)
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("secure", [False, True])
def test_the_proxy_protocol(header, secure):
    """Versions 1 and 2, in pieces, before plain HTTP and TLS; half a header delays no other connection."""
    settings = listener_settings(
        proxy_protocol=True,
        tls=secure,
        proxy=ProxySettings(trusted=("127.0.0.1",)),
        tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY),
    )
    with serving_asgi(whole=settings) as worker, worker.connect() as half, worker.connect() as sock:
        half.sendall(header[:5])
        for at in range(len(header)):
            sock.sendall(header[at : at + 1])
        context = ssl.create_default_context(cadata=CERTIFICATE)
        with context.wrap_socket(sock, server_hostname="localhost") if secure else sock as client:
            client.sendall(GET % (b"/", CLOSE))
            scheme = b"https" if secure else b"http"
            assert scheme + b" ('1.2.3.4', 1000) /" in read_all(client)


def test_a_proxy_header_of_an_untrusted_peer_is_refused(caplog):
    """The connection is closed, as is one of a trusted peer without a PROXY header."""
    with (
        serving_asgi(whole=listener_settings(proxy_protocol=True)) as worker,
        worker.connect() as sock,
    ):
        assert sock.recv(9) == b""
    assert "not in proxy.trusted" in caplog.text
    trusted = listener_settings(proxy_protocol=True, proxy=ProxySettings(trusted=("127.0.0.1",)))
    with serving_asgi(whole=trusted) as worker:
        assert closed_without_answer(worker, GET % (b"/", b""))
