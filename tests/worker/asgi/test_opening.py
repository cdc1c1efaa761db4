"""The PROXY header before HTTP and TLS in the event loop."""

import logging
import ssl

import pytest

from preforkd.config.settings import (
    HttpSettings,
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


def trusting(**http):
    proxy = ProxySettings(trusted=("127.0.0.1",))
    return listener_settings(proxy_protocol=True, proxy=proxy, http=HttpSettings(**http))


def test_a_proxy_header_that_does_not_arrive(caplog):
    """The connection is closed after the header's timeout, without an answer."""
    with (
        caplog.at_level(logging.DEBUG, "preforkd.worker"),
        serving_asgi(whole=trusting(header_timeout=0.1)) as worker,
    ):
        assert closed_without_answer(worker, V1[:9])
    assert "the PROXY header did not arrive" in caplog.text


def test_a_drain_closes_what_has_sent_no_proxy_header(caplog):
    """At its end, so that the worker exits."""
    with serving_asgi(whole=trusting()) as worker, worker.connect() as sock:
        sock.sendall(V1[:9])
        with worker.connect() as other:  # accepted in turn: the first is known
            other.sendall(V1 + GET % (b"/", CLOSE))
            assert b" 200 " in read_all(other)
        worker.retire(within=0.2)
        assert worker.ended()
        assert sock.recv(9) == b""
