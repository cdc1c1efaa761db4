"""What applications answer, through both HTTP servers: the same bytes, in a valid frame, RFC 9112, section 6."""

import contextlib
import re
import threading

import pytest

from preforkd.config.settings import HttpSettings, ProxySettings, Settings
from tests.worker.behaviours import BEHAVIOURS, HOP_BY_HOP, behave_asgi, behave_wsgi
from tests.worker.serving import read_all, serving

APPLICATIONS = {"wsgi": behave_wsgi, "asgi": behave_asgi}
REQUESTS = {
    "GET": (b"GET", b"1.1", b""),
    "HEAD": (b"HEAD", b"1.1", b""),
    "GET, close": (b"GET", b"1.1", b"Connection: close\r\n"),
    "POST": (b"POST", b"1.1", b"Content-Length: 0\r\n"),
    "GET, HTTP/1.0": (b"GET", b"1.0", b""),
    "GET, HTTP/1.0, kept": (b"GET", b"1.0", b"Connection: keep-alive\r\n"),
    "HEAD, HTTP/1.0, kept": (b"HEAD", b"1.0", b"Connection: keep-alive\r\n"),
}
BEHIND = b"OPTIONS /0 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
CHUNK = re.compile(rb"([0-9a-f]+)\r\n")
DATE = re.compile(rb"Date: [^\r]+\r\n")


@pytest.fixture(scope="module")
def workers():
    with contextlib.ExitStack() as stack:
        yield {
            kind: stack.enter_context(serving(application, kind))
            for kind, application in APPLICATIONS.items()
        }


def split(data, without_body):
    """Return head, fields, body and rest of an answer as its frame has them.

    The body of an answer that ends before its frame is what there is.
    """
    head, _, rest = data.partition(b"\r\n\r\n")
    pairs = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    fields = {name.lower(): value for name, value in pairs}
    assert len(fields) == len(pairs), "a field is given twice"
    assert not {b"content-length", b"transfer-encoding"} <= fields.keys()
    if without_body or head[9:12] in {b"204", b"304"}:
        return head, fields, b"", rest
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        return head, fields, rest[:length], rest[length:]
    if b"transfer-encoding" not in fields:
        return head, fields, rest, b""
    assert fields[b"transfer-encoding"] == b"chunked"
    body = b""
    while match := CHUNK.match(rest):
        end = match.end() + int(match[1], 16)
        body += rest[match.end() : end]
        assert rest[end : end + 2] == b"\r\n"
        rest = rest[end + 2 :]
        if int(match[1], 16) == 0:
            break
    return head, fields, body, rest


def check(data, one, request, cut):
    """Check the answer of a behaviour to a request, and what follows it; ``cut``: it may be cut off."""
    method, version, options = request
    head, fields, body, rest = split(data, method == b"HEAD")
    if one.body is None or (cut and head.startswith(b"HTTP/1.1 500 ")):
        assert head.startswith(b"HTTP/1.1 500 ")
        assert not rest
        return
    assert head.startswith(b"HTTP/1.1 %d" % one.code)
    hidden = method == b"HEAD" or one.code in {204, 304}
    assert body == (b"" if hidden else one.body) or (cut and one.body.startswith(body))
    hop_by_hop = {name.lower().encode() for name, _ in HOP_BY_HOP} - {
        b"connection",
        b"transfer-encoding",
    }
    assert not hop_by_hop & fields.keys()
    assert (b"transfer-encoding" in fields) <= (version == b"1.1" and not one.known)
    assert not (one.code == 204 and b"content-length" in fields)
    asked = b"close" not in options and (version == b"1.1" or b"keep-alive" in options)
    # The length of a body that is not sent may be wrong.
    ends = one.ends and not (hidden and "Content-Length" in dict(one.headers) and not one.raises)
    kept = asked and not ends and (version == b"1.1" or one.known or hidden)
    if method == b"HEAD" and (one.raises or not one.known):
        kept = bool(rest)  # as the server may decide
    assert (fields.get(b"connection") == b"close") <= (not kept)
    assert rest.startswith(b"HTTP/1.1 200 ") if kept else not rest


@pytest.mark.parametrize("request_name", REQUESTS)
def test_the_answers_of_both(workers, request_name):
    """Framed as the client can read it, with the next answer behind it or the end; the same from both.

    Except where a behaviour has a reason, and for HEAD: a WSGI iterable is not iterated, so that the framing of
    its body is not known, and is not announced.
    """
    method, version, options = REQUESTS[request_name]
    differing = {}
    for number, (name, one) in enumerate(BEHAVIOURS.items()):
        data = b"%b /%d HTTP/%b\r\nHost: h\r\n%b\r\n" % (method, number, version, options)
        found = {kind: DATE.sub(b"", worker.ask(data + BEHIND)) for kind, worker in workers.items()}
        for kind, answer in found.items():
            try:
                check(answer, one, REQUESTS[request_name], cut=kind == "asgi" and one.why)
            except AssertionError as error:
                differing[name] = f"{error}", found
        excepted = one.why or (method == b"HEAD" and (one.raises or not one.known))
        if len(set(found.values())) > 1 and not excepted:
            differing[name] = found
    assert not differing


REPORTED = b"X-Forwarded-Host: a.b:81\r\nX-Forwarded-Prefix: /other\r\n"
PATHS = (b"/shop/x?q", b"/shop", b"/x", b"/%73hop/x", b"/shop%2Fx", b"/shopping", b"*")


def mounted_wsgi(environ, start_response):
    """Answer with path below the prefix, prefix, host, server."""
    start_response("200 OK", [])
    path, prefix = environ["PATH_INFO"], environ["SCRIPT_NAME"]
    host, port = environ["SERVER_NAME"], environ["SERVER_PORT"]
    return [repr((prefix + path, prefix, environ["HTTP_HOST"], host, int(port))).encode()]


async def mounted_asgi(scope, _receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    path = scope["root_path"] if scope["path"] == "*" else scope["path"]
    host = dict(scope["headers"])[b"host"].decode()
    text = repr((path, scope["root_path"], host, *scope["server"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.0/8"])
def test_both_are_mounted_alike(trusted):
    """The same prefix, host and server from the same paths, settings and reports of a proxy."""
    proxy = ProxySettings(trusted=(trusted,), headers="x-forwarded", parameters=("host", "prefix"))
    settings = Settings(http=HttpSettings(prefix="/shop"), proxy=proxy)
    applications = {"wsgi": mounted_wsgi, "asgi": mounted_asgi}
    found = {}
    for kind, application in applications.items():
        with serving(application, kind, whole=settings) as worker:
            port = b":%d" % worker.address[1]
            for path in PATHS:
                method = b"OPTIONS" if path == b"*" else b"GET"
                for fields in (b"", REPORTED):
                    data = b"%b %b HTTP/1.1\r\nHost: h%b\r\nConnection: close\r\n%b\r\n" % (
                        method,
                        path,
                        port,
                        fields,
                    )
                    body = worker.ask(data).partition(b"\r\n\r\n")[2]
                    found.setdefault((path, fields), set()).add(body.replace(port[1:], b"PORT"))
    assert all(len(bodies) == 1 for bodies in found.values()), found
    assert found[b"/%73hop/x", b""] == {b"('/shop/x', '/shop', 'h:PORT', '127.0.0.1', PORT)"}
    reported = {b"('/other/x', '/other', 'a.b:81', 'a.b', 81)"}
    ignored = {b"('/shop/x', '/shop', 'h:PORT', '127.0.0.1', PORT)"}
    assert found[b"/x", REPORTED] == (reported if trusted == "127.0.0.1" else ignored)


def test_an_answer_arrives_that_input_follows():
    """What a client sends behind its last request, while the application works, takes no answer away.

    Closing a socket with unread input resets the connection and drops what the kernel still holds back, tcp(7).
    """
    begun, goes_on = threading.Semaphore(0), threading.Semaphore(0)

    def app(_environ, start_response):
        begun.release()
        assert goes_on.acquire(timeout=20)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    async def asgi(scope, _receive, send):
        assert scope["type"] == "http"
        begun.release()
        assert goes_on.acquire(timeout=20)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    for kind, application in {"wsgi": app, "asgi": asgi}.items():
        with serving(application, kind) as worker:
            for request in (b"GET / HTTP/1.0\r\n\r\n", BEHIND):
                with worker.connect() as sock:
                    sock.sendall(request)
                    assert begun.acquire(timeout=20)
                    sock.sendall(b"\r\n")
                    goes_on.release()
                    assert read_all(sock).endswith(b"\r\n\r\nok"), kind
