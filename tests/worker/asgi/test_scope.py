"""The scope of a request: what the application gets instead of a head."""

import pytest

from preforkd.config.settings import (
    ProxySettings,
    Settings,
)
from preforkd.http.forwarded import Origin
from preforkd.http.head import RequestHead
from preforkd.worker.asgi.scope import scope_builder
from preforkd.worker.listener_context import Endpoint
from tests.worker.asgi.applications import (
    CLOSE,
    GET,
    serving_asgi,
)


@pytest.mark.parametrize(("trusted", "client"), [("127.0.0.0/8", "1.2.3.4"), ("10.0.0.1", "127.")])
def test_forwarded_headers_count_from_trusted_peers_only(trusted, client):
    """From any other peer the application does not see them."""
    proxy = ProxySettings(trusted=(trusted,), headers="x-forwarded")
    with serving_asgi(whole=Settings(proxy=proxy)) as worker:
        headers = b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n" + CLOSE
        answer = worker.ask(GET % (b"/", headers)).decode()
        assert f"('{client}" in answer
        assert ("https (" in answer) == (client == "1.2.3.4") == ("x-forwarded-for" in answer)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a%20b/%C3%A9?c=d%20e", ("/a b/\u00e9", b"/a%20b/%C3%A9", b"c=d%20e")),
        (b"http://other:80/x?y", ("/x", b"/x", b"y")),
        (b"http://other?y", ("/", b"/", b"y")),
        (b"http://other", ("/", b"/", b"")),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/shop"])
def test_path_and_query(target, expected, prefix):
    """Percent-decoded, raw, and the query; below the mount prefix, whether the proxy stripped it or not."""
    head = RequestHead("GET", target, "1.1", ((b"host", b"h"),), True, 0, False)
    build = scope_builder(Endpoint("127.0.0.1", "8000", secure=False))
    scope = build(head, Origin(prefix=prefix))
    path, raw_path, query = expected
    assert scope["path"] == prefix + path
    assert scope["raw_path"] == prefix.encode() + raw_path
    assert (scope["query_string"], scope["root_path"]) == (query, prefix)
    assert (scope["server"], scope["scheme"]) == (("127.0.0.1", 8000), "http")
    assert (
        build(RequestHead("GET", b"/shop/x", "1.1", (), True, 0, False), Origin(prefix="/shop"))[
            "path"
        ]
        == "/shop/x"
    )


def test_what_a_proxy_reports():
    """Client, scheme, host and port; a Unix socket has no server address."""
    head = RequestHead("OPTIONS", b"*", "1.0", (), True, 0, False)
    build = scope_builder(Endpoint("localhost", "80", secure=True))
    scope = build(head, Origin())
    assert (scope["path"], scope["server"], scope["scheme"]) == ("*", None, "https")
    assert "client" not in scope
    scope = build(head, Origin(address="1.2.3.4", scheme="http", host="shop", port="81"))
    assert scope["client"] == ("1.2.3.4", 0)
    assert (scope["server"], scope["scheme"], scope["http_version"]) == (
        ("shop", 81),
        "http",
        "1.0",
    )


def test_every_key_of_the_scope():
    """ASGI, HTTP Connection Scope; a port alone that a proxy reports goes with our own host."""
    head = RequestHead("PUT", b"/x?y", "1.1", ((b"host", b"h"),), True, 0, False)
    build = scope_builder(Endpoint("127.0.0.1", "8000", secure=False))
    assert build(head, Origin(port="81")) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"y",
        "root_path": "",
        "headers": ((b"host", b"h"),),
        "server": ("127.0.0.1", 81),
    }
