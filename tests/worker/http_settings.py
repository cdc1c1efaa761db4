"""What the tests of the WSGI server's connections share: settings, TLS clients, an application."""

import ssl

from preforkd.config.settings import (
    HttpSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from tests.worker.certificate import CERTIFICATE, KEY

GET = b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n"

CLOSE = b"Connection: close\r\n"


def show_client(environ, start_response):
    """Answer with what the environ says of the client, and the body."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    names = ("wsgi.url_scheme", "REMOTE_ADDR", "REMOTE_PORT", "PATH_INFO")
    shown = " ".join(str(environ.get(name)) for name in names)
    return [shown.encode() + b" " + environ["wsgi.input"].read()]


def listener_settings(**how):
    """Settings whose one listener, the test's, is like this."""
    sections = {name: how.pop(name) for name in ("tls_section", "proxy", "http") if name in how}
    return Settings(
        listen=(ListenSettings(address="", name="test", **how),),
        tls=sections.get("tls_section", TlsSettings()),
        proxy=sections.get("proxy", ProxySettings()),
        http=sections.get("http", HttpSettings()),
    )


SECURE = listener_settings(tls=True, tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY))


def client_context():
    context = ssl.create_default_context(cadata=CERTIFICATE)
    context.set_alpn_protocols(["http/1.1"])
    return context


def connect_tls(worker, **how):
    return client_context().wrap_socket(worker.connect(), server_hostname="localhost", **how)


def closed_without_answer(worker, data):
    """Tell whether the connection ends without an answer."""
    try:
        return worker.ask(data) == b""
    except OSError:
        return True


PROXIED = listener_settings(proxy_protocol=True, proxy=ProxySettings(trusted=("127.0.0.1",)))
