"""The opening handshake of WebSockets, RFC 6455, section 4.2."""

import pytest

from preforkd.http.head import CHUNKED, RequestError, RequestHead
from preforkd.http.upgrade import WebSocketRequest, accept_headers, check

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # the example of section 1.3
HANDSHAKE = {
    b"host": b"h",
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-key": KEY,
    b"sec-websocket-version": b"13",
}


def head(method="GET", length=0, more=(), **changed):
    fields = HANDSHAKE | {
        f"sec-websocket-{name}".encode(): value for name, value in changed.items()
    }
    headers = tuple((name, value) for name, value in fields.items() if value is not None)
    known = {"keep_alive": True, "expects_continue": False}
    return RequestHead(
        method=method,
        target=b"/",
        version="1.1",
        headers=(*headers, *more),
        length=length,
        **known,
    )


def test_a_plain_handshake_is_understood():
    assert check(head()) == WebSocketRequest(KEY, (), ())


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS"])
def test_another_method_than_get_is_refused(method):
    """4.2.1: the request is an HTTP GET."""
    with pytest.raises(RequestError) as caught:
        check(head(method))
    assert caught.value.status == "400 Bad Request"
    assert "method" in caught.value.reason


@pytest.mark.parametrize("length", [1, 5, CHUNKED])
def test_a_body_is_refused(length):
    """What follows the head are frames: no byte may be taken for one or the other."""
    with pytest.raises(RequestError) as caught:
        check(head(length=length))
    assert caught.value.status == "400 Bad Request"
    assert "body" in caught.value.reason


@pytest.mark.parametrize(
    "version", [None, b"", b"8", b"7", b"0", b"014", b"13.0", b"14", b"abc", b"13, 8"]
)
def test_another_version_is_answered_with_the_one_that_is_supported(version):
    """4.2.2 and 4.4: 426, with Sec-WebSocket-Version; RFC 9110, 15.5.22: and with Upgrade."""
    with pytest.raises(RequestError) as caught:
        check(head(version=version))
    assert caught.value.status == "426 Upgrade Required"
    assert caught.value.headers == (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


@pytest.mark.parametrize(
    "key",
    [
        None,
        b"",
        b"dGhlIHNhbXBsZSBub25jZQ",
        b"dGhlIHNhbXBsZSBub25jZQ=",
        b"dGhlIHNhbXBsZSBub25jZQ===",
        b"dGhlIHNhbXBsZSBub25jZQ== ,",
        b"dGhlIHNhbXBsZSBub25jZWQ=",  # 17 bytes
        b"dGhlIHNhbXBsZSBub25j",  # 15 bytes
        b"dGhlIHNhbXBsZSBub25j\xff\xff==",
        b"dGhlIHNhbXBsZSBub25-ZQ==",
        b"not base64 in any way",
    ],
)
def test_a_key_that_is_not_16_bytes_in_base64_is_refused(key):
    """4.2.1, number 5."""
    with pytest.raises(RequestError) as caught:
        check(head(key=key))
    assert caught.value.status == "400 Bad Request"
    assert "Sec-WebSocket-Key" in caught.value.reason


@pytest.mark.parametrize("name", [b"sec-websocket-key", b"sec-websocket-version"])
def test_key_and_version_must_not_be_repeated(name):
    """11.3.1 and 11.3.5: two parties could choose different ones."""
    with pytest.raises(RequestError) as caught:
        check(head(more=[(name, HANDSHAKE[name])]))
    assert caught.value.status == "400 Bad Request"
    assert "repeated" in caught.value.reason


@pytest.mark.parametrize(
    ("values", "offered"),
    [
        ([b"chat"], ("chat",)),
        ([b"chat, superchat"], ("chat", "superchat")),
        ([b"chat,superchat ,\tv1.example"], ("chat", "superchat", "v1.example")),
        ([b"chat", b"superchat"], ("chat", "superchat")),
        ([b", chat,, superchat,"], ("chat", "superchat")),
        ([b""], ()),
    ],
)
def test_subprotocols_are_a_list_in_one_field_or_several(values, offered):
    """4.2.1, number 8, and 11.3.4, in the order of preference."""
    more = [(b"sec-websocket-protocol", value) for value in values]
    assert check(head(more=more)).subprotocols == offered


@pytest.mark.parametrize(
    "value", [b"a b", b"a/b", b'"a"', b"a;b", b"\xe4", b"a=1", b"chat, (x)", b"a, a"]
)
def test_malformed_or_repeated_subprotocols_are_refused(value):
    """4.1, number 10: tokens, all of them unique."""
    with pytest.raises(RequestError) as caught:
        check(head(protocol=value))
    assert caught.value.status == "400 Bad Request"


@pytest.mark.parametrize(
    ("values", "offered"),
    [
        ([b"permessage-deflate"], [("permessage-deflate", [])]),
        (
            [b"permessage-deflate; client_max_window_bits"],
            [("permessage-deflate", [("client_max_window_bits", None)])],
        ),
        (
            [b"permessage-deflate;server_max_window_bits=10 ; client_no_context_takeover"],
            [
                (
                    "permessage-deflate",
                    [("server_max_window_bits", "10"), ("client_no_context_takeover", None)],
                )
            ],
        ),
        ([b'x; a = "10"'], [("x", [("a", "10")])]),
        ([b'x; a="1\\0"; b'], [("x", [("a", "10"), ("b", None)])]),
        ([b"foo, bar; baz=2"], [("foo", []), ("bar", [("baz", "2")])]),
        ([b"foo", b"bar; baz=2"], [("foo", []), ("bar", [("baz", "2")])]),
        ([b"foo ,, bar,"], [("foo", []), ("bar", [])]),
        ([b""], []),
    ],
)
def test_extensions_are_a_list_with_parameters(values, offered):
    """9.1: tokens with parameters, in one field or several, a value also quoted."""
    more = [(b"sec-websocket-extensions", value) for value in values]
    assert check(head(more=more)).extensions == tuple(offered)


@pytest.mark.parametrize(
    "value",
    [
        b"a b",
        b"a;",
        b"a; ;b",
        b"a; b=",
        b"; a",
        b'a; b="',
        b'a; b="x y"',
        b'a; b=""',
        b'a; b="x"y',
        b"a; b=(1)",
        b"a=1",
        b"\xe4",
        b"foo, a b",
    ],
)
def test_malformed_extensions_are_refused(value):
    """9.1: the connection fails at once."""
    with pytest.raises(RequestError) as caught:
        check(head(extensions=value))
    assert caught.value.status == "400 Bad Request"
    assert "Sec-WebSocket-Extensions" in caught.value.reason


def test_the_key_is_answered_as_in_the_example():
    """1.3: the example's accept value, and nothing that was not negotiated."""
    assert accept_headers(WebSocketRequest(KEY), None, "") == [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ]


def test_a_chosen_subprotocol_and_an_extension_are_answered():
    """4.2.2, numbers 5 and 6 of the answer."""
    request = WebSocketRequest(KEY, ("chat", "superchat"))
    assert accept_headers(request, "superchat", "permessage-deflate")[3:] == [
        (b"Sec-WebSocket-Protocol", b"superchat"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
    ]


@pytest.mark.parametrize("subprotocol", ["", "other", "Chat", "chat\r\nX: y"])
def test_a_subprotocol_that_was_not_offered_is_an_error(subprotocol):
    """4.2.2: the client would fail the connection."""
    with pytest.raises(ValueError, match="not offered"):
        accept_headers(WebSocketRequest(KEY, ("chat",)), subprotocol, "")
