"""What is remembered of heads, and what proxies may say."""

import socket

import pytest

from preforkd.apps import wsgi
from preforkd.config.settings import (
    HttpSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from preforkd.http.forwarded import Trust
from preforkd.http.head import Bounds, Budget
from preforkd.worker.acceptor import Listener
from preforkd.worker.listener_context import Endpoint, HttpListener, ListenerContext
from tests.worker.certificate import CERTIFICATE, KEY

BUILD = wsgi.environ_builder("localhost", "80", secure=False, threads=False)
HEAD = b"GET /%b HTTP/1.1\r\nHost: h\r\n%b\r\n"


def context(**how):
    return ListenerContext(0, Bounds(), BUILD, probes={b"/-/ok": "alive"}, **how)


def test_a_head_that_comes_again_is_remembered():
    """From its second time on; with the environ, which nobody changes."""
    one = context()
    data = HEAD % (b"a", b"")
    first, second, third = (one.cached_head(bytes(data)) for _ in range(3))
    assert first is not second
    assert second is third
    assert third.template["PATH_INFO"] == "/a"


def test_memory_is_bounded():
    """However many heads come, and however often."""
    one = context()
    for _ in range(3):
        for number in range(5000):
            one.cached_head(HEAD % (b"%d" % number, b""))
    for number in range(5000):
        for _ in range(2):
            one.cached_head(HEAD % (b"%d" % number, b""))
    assert len(one.heads) <= 128
    assert len(one._seen) <= 1024
    for _ in range(3):
        one.cached_head(HEAD % (b"", b"X: " + b"a" * 5000 + b"\r\n"))
    assert all(len(data) <= 2048 for data in one.heads)


def test_what_is_not_for_the_application_is_not_complete():
    """A body that is to come, and our own health."""
    one = context()
    assert one.cached_head(HEAD % (b"", b"")).complete
    assert not one.cached_head(HEAD % (b"", b"Content-Length: 1\r\n")).complete
    probe = one.cached_head(HEAD % (b"-/ok?x", b""))
    assert not probe.complete
    assert probe.probe == "alive"
    assert one.cached_head(b"POST" + (HEAD % (b"-/ok", b""))[3:]).probe == ""


FORWARDED = b"X-Forwarded-For: 9.9.9.9, 1.2.3.4, 10.0.0.7\r\nX-Forwarded-Proto: https\r\n"


def test_a_trusted_proxy_names_the_client():
    """The nearest address that is not a proxy; the scheme."""
    cached = context(style="x-forwarded", trust=Trust(["10.0.0.0/8"])).cached_head(
        HEAD % (b"", FORWARDED)
    )
    assert cached.remote == cached.template["REMOTE_ADDR"] == "1.2.3.4"
    assert cached.template["wsgi.url_scheme"] == "https"


def test_nobody_else_does():
    """The application does not even see such headers of those who are not trusted."""
    cached = context(style="x-forwarded").cached_head(
        HEAD % (b"", FORWARDED + b"Forwarded: for=1.1.1.1\r\n")
    )
    assert cached.remote is None
    assert cached.template["wsgi.url_scheme"] == "http"
    assert not [key for key in cached.template if "FORWARDED" in key]


REPORTED = b"X-Forwarded-Host: a.b:81\r\nX-Forwarded-Prefix: /other\r\n"
MOUNTED = {"style": "x-forwarded", "prefix": "/shop", "parameters": ("host", "port", "prefix")}


def test_a_trusted_proxy_names_host_port_and_prefix():
    """As with Werkzeug's ProxyFix; the prefix replaces the setting."""
    trusted = context(trust=Trust(["10.0.0.0/8"]), **MOUNTED)
    template = trusted.cached_head(HEAD % (b"other/x", REPORTED)).template
    assert template["HTTP_HOST"] == "a.b:81"
    assert (template["SERVER_NAME"], template["SERVER_PORT"]) == ("a.b", "81")
    assert (template["SCRIPT_NAME"], template["PATH_INFO"]) == ("/other", "/x")
    template = trusted.cached_head(HEAD % (b"x", b"X-Forwarded-Port: 443\r\n")).template
    assert template["HTTP_HOST"] == "h:443"
    assert (template["SERVER_NAME"], template["SERVER_PORT"]) == ("localhost", "443")
    assert (template["SCRIPT_NAME"], template["PATH_INFO"]) == ("/shop", "/x")


@pytest.mark.parametrize("style", ["off", "x-forwarded"])
def test_the_mount_prefix_is_a_setting(style):
    """For peers that are not trusted too, which name none; whether it was stripped or not."""
    one = context(**{**MOUNTED, "style": style})
    template = one.cached_head(HEAD % (b"shop%2Fx?q", REPORTED)).template
    assert (template["SCRIPT_NAME"], template["PATH_INFO"]) == ("/shop", "/x")
    assert (template["HTTP_HOST"], template["SERVER_NAME"]) == ("h", "localhost")
    assert template["REQUEST_URI"] == "/shop%2Fx?q"
    assert one.cached_head(HEAD % (b"x", b"")).template["PATH_INFO"] == "/x"
    assert one.cached_head(HEAD % (b"shop", b"")).template["PATH_INFO"] == ""


def test_without_proxies_they_are_headers_like_others():
    """Left to the application."""
    cached = context().cached_head(HEAD % (b"", FORWARDED))
    assert cached.template["HTTP_X_FORWARDED_PROTO"] == "https"
    assert cached.remote is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n",
        b"\r\n\r\n",
        b"GET",
        b"",
    ],
)
def test_only_a_good_head_that_nothing_follows_is_whole(data):
    """Everything else is for the reader, which waits, parts or refuses."""
    assert context().complete_head(data) is None


def test_a_head_is_whole_when_it_is_new_and_when_it_is_known():
    """The first time as the third."""
    one = context()
    for _ in range(3):
        assert one.complete_head(HEAD % (b"x", b"")).head.target == b"/x"
    assert one.complete_head(HEAD % (b"x", b"")) is one.heads[HEAD % (b"x", b"")]


@pytest.mark.parametrize(
    ("data", "at_once"),
    [
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na", True),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcd", False),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\na", False),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\n\r\na", False),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -3\r\n\r\nabc", False),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0", False),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
            False,
        ),
        (b"GET /-/ok HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n", False),
    ],
)
def test_what_may_be_answered_with_its_body_at_once(data, at_once):
    """A body of a known length, kept in memory, with nothing behind it; the rest is for the reader."""
    found = context().head_with_body(data)
    assert (found is not None) == at_once
    assert not at_once or found[1] == data.index(b"\r\n\r\n") + 4


def test_a_body_that_is_too_large_is_for_the_reader_to_refuse():
    """However much may be kept in memory."""
    one = ListenerContext(0, Bounds(max_body=2, spool=9), BUILD, probes={})
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
    assert one.head_with_body(head % 2 + b"ab")
    assert one.head_with_body(head % 3 + b"abc") is None


def test_where_a_body_fits_into_memory_to_the_byte():
    """As large as the spool's threshold and no larger; a head of two kilobytes is kept, a larger one is not."""
    one = ListenerContext(0, Bounds(spool=3), BUILD, probes={})
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
    assert one.head_with_body(head % 3 + b"abc")
    assert one.head_with_body(head % 4 + b"abcd") is None
    for size, kept in ((2048, 1), (2049, 1)):
        data = HEAD % (b"", b"X: " + b"a" * (size - len(HEAD % (b"", b"X: \r\n"))) + b"\r\n")
        for _ in range(2):
            one.cached_head(data)
        assert len(one.heads) == kept


def listener(address, settings, name="test"):
    """Return the listener, and what its shell was asked to build for."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    endpoints, budget, trust = [], Budget(), Trust(settings.proxy.trusted)
    with socket.create_server((address, 0), family=family) as sock:
        port = sock.getsockname()[1]
        made = HttpListener(
            7,
            Listener(name, sock),
            settings,
            lambda endpoint: endpoints.append(endpoint) or BUILD,
            trust=trust,
            budget=budget,
        )
    assert [(one.index, one.trusted) for one in made.contexts] == [(7, False), (7, True)]
    assert all(one.bounds.budget is budget for one in made.contexts)
    return made, (*endpoints, port)


def test_a_listener_has_the_settings_of_its_name():
    """TLS and the PROXY protocol are those of its entry, by its name or, without one, by its address."""
    certificate = TlsSettings(certificate=CERTIFICATE, key=KEY)
    entries = (
        ListenSettings(name="secure", address="8443", tls=True),
        ListenSettings(address="8000", proxy_protocol=True),
    )
    settings = Settings(listen=entries, tls=certificate)
    for name, tls, proxied in (("secure", True, False), ("8000", False, True), ("x", False, False)):
        made, (endpoint, port) = listener("127.0.0.1", settings, name)
        assert (made.tls is not None, made.proxy_protocol) == (tls, proxied)
        assert endpoint == Endpoint("127.0.0.1", str(port), tls)
        assert not made.contexts[0].wildcard


def test_a_listener_for_every_address():
    """Its connections find out which one the client used; one of a Unix socket has none."""
    for address in ("0.0.0.0", "::"):
        made, (endpoint, port) = listener(address, Settings())
        assert endpoint == Endpoint(address, str(port), secure=False)
        assert [one.wildcard for one in made.contexts] == [True, True]
    endpoints = []
    with socket.socket(socket.AF_UNIX) as sock:
        made = HttpListener(
            0,
            Listener("test", sock),
            Settings(),
            lambda endpoint: endpoints.append(endpoint) or BUILD,
            trust=Trust(()),
            budget=Budget(),
        )
    assert endpoints == [Endpoint("localhost", "80", secure=False)]
    assert not made.contexts[0].wildcard


def test_the_settings_of_http_hold_for_a_listener():
    """The bounds, the probes, the prefix and what proxies report."""
    http = HttpSettings(
        max_line=512,
        max_field=600,
        max_header=1024,
        max_fields=17,
        max_body=1000,
        spool=100,
        healthy="/alive",
        ready="/ready",
        prefix="/shop",
    )
    proxy = ProxySettings(trusted=("10.0.0.0/8",), headers="x-forwarded", parameters=("for",))
    made, _ = listener("127.0.0.1", Settings(http=http, proxy=proxy))
    plain, trusted = made.contexts
    bounds = plain.bounds
    assert (bounds.max_line, bounds.max_field, bounds.max_header) == (512, 600, 1024)
    assert (bounds.max_fields, bounds.max_body, bounds.spool) == (17, 1000, 100)
    for path, probe in ((b"alive", "alive"), (b"ready", "ready"), (b"", "")):
        assert plain.cached_head(HEAD % (path, b"")).probe == probe
    assert plain.cached_head(HEAD % (b"x", FORWARDED)).template["SCRIPT_NAME"] == "/shop"
    cached = trusted.cached_head(HEAD % (b"x", FORWARDED))
    assert (cached.remote, cached.template["wsgi.url_scheme"]) == ("1.2.3.4", "http")
    without = listener("127.0.0.1", Settings())[0].contexts[0]
    assert without.cached_head(HEAD % (b"", b"")).probe == ""
