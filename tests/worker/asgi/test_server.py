"""The ASGI server: how connections begin."""

import ssl

from preforkd.config.settings import (
    HttpSettings,
    TlsSettings,
)
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    listener_settings,
    serving_asgi,
)
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.serving import read_all


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
