"""Arbitrary pipelines, mutations, splits and ends of connections, against the engine and the HTTP servers.

``PREFORKD_FUZZ`` is a number of examples: more of them, for a night.
"""

import logging.handlers
import os
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from preforkd.http.head import RequestError
from preforkd.ipc.handoff import HandoffQueue, pair
from tests.http.reading import Reading
from tests.worker.serving import Worker, read_all, serving

EXAMPLES = int(os.environ.get("PREFORKD_FUZZ", "150"))
BOUNDS = {"max_line": 512, "max_field": 700, "max_header": 1024, "max_fields": 20}  # as in reading
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Sent:
    """A request as its client means it: the bytes, and what must reach the application."""

    data: bytes
    method: str
    target: str
    body: bytes
    keep: bool


@st.composite
def requests(draw):
    """Make a request that is to be answered."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"]))
    path = draw(st.from_regex(r"/[a-z0-9/._~-]{0,20}(\?[a-z0-9=&]{0,10})?", fullmatch=True))
    target = draw(st.sampled_from(["", "", "", "http://other:8"])) + path
    body = draw(st.binary(max_size=300))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    http11 = framing == "chunked" or draw(st.integers(0, 4)) > 0
    connection = draw(
        st.sampled_from(["", "", "", "close", "keep-alive", "Keep-Alive, x", "Close"])
    )
    lines = [f"{method} {target} HTTP/1.{int(http11)}", "Host: h"]
    names = st.sampled_from(["X-A:", "Accept: ", "Cookie:\t", "X_B: "])
    values = st.integers(0, 99)
    fields = draw(st.lists(st.tuples(names, values), max_size=3))
    lines += [f"{name}{value}" for name, value in fields]
    if connection:
        lines.append(f"Connection: {connection}")
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
        tail = body
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        tail = _chunks(draw, body)
    else:
        tail = body = b""
    token = connection.lower()
    keep = "close" not in token and (http11 or "keep-alive" in token)
    empty = draw(st.sampled_from([b"", b"", b"\r\n"]))
    head = "\r\n".join([*lines, "", ""]).encode()
    return Sent(empty + head + tail, method, target, body, keep)


def _chunks(draw, body):
    parts, rest = [], body
    while rest:
        size = draw(st.integers(1, len(rest)))
        extension = draw(st.sampled_from([b"", b"", b";a=b", b';a="b c"']))
        parts.append(b"%x%b\r\n%b\r\n" % (size, extension, rest[:size]))
        rest = rest[size:]
    trailer = draw(st.sampled_from([b"", b"", b"X-T: 1\r\n"]))
    return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"


TOKENS = st.sampled_from([
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    b"GET / HTTP/1.1\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"_", b"%", b"\xff", b"f" * 600, b"Host: x\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.0", b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
])  # fmt: skip
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "double"]),
        st.integers(0, 5000),
        st.integers(1, 40),
        TOKENS | st.binary(min_size=1, max_size=4),
    ),
    max_size=4,
)


def mutated(data, mutations):
    for how, place, size, token in mutations:
        at = place % (len(data) + 1)
        middle = data[at : at + size]
        data = data[:at] + {
            "insert": token + middle,
            "delete": b"",
            "replace": token,
            "double": middle + middle,
        }[how] + data[at + size :]  # fmt: skip
    return data


def pieces(data, cuts):
    """Cut data at these places (modulo its length)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    ends = [*places, len(data)]
    return [data[start:end] for start, end in zip([0, *places], ends, strict=True) if start < end]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


def outcome(parts):
    """Return the complete requests up to the first that ends the connection, and a refusal's status."""
    reading, refusal = Reading(), None
    try:
        for part in parts:
            reading.feed(part)
    except RequestError as error:
        refusal = int(error.status[:3])
    complete = []
    for one in reading.requests:
        complete.append((one.head.method, one.head.target.decode("latin-1"), one.body))
        if not one.head.keep_alive:
            return complete, None
    return complete, refusal


@fuzzed
@given(st.lists(requests(), min_size=1, max_size=4), CUTS)
def test_what_is_meant_is_what_is_read(sent, cuts):
    """However it is cut: each request of a pipeline, with its body, up to one that ends it."""
    expected = []
    for one in sent:
        expected.append((one.method, one.target, one.body))
        if not one.keep:
            break
    data = b"".join(one.data for one in sent)
    assert outcome(pieces(data, cuts)) == (expected, None)


@fuzzed
@given(st.lists(requests(), min_size=1, max_size=3), MUTATIONS, CUTS)
@example([], [("insert", 0, 1, b"\r\n")], [])
def test_how_it_arrives_does_not_matter(sent, mutations, cuts):
    """Whole, byte by byte and in pieces, a damaged pipeline has one meaning; nothing else is raised."""
    data = mutated(b"".join(one.data for one in sent), mutations)
    whole = outcome([data])
    assert outcome([data[at : at + 1] for at in range(len(data))]) == whole
    assert outcome(pieces(data, cuts)) == whole


class Recorder:
    """An application that notes what reaches it, by connection."""

    def __init__(self):
        self.seen = {}

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read()
        assert len(body) == int(environ.get("CONTENT_LENGTH") or 0)
        one = (environ["REQUEST_METHOD"], environ["REQUEST_URI"], body)
        self.seen.setdefault(int(environ["REMOTE_PORT"]), []).append(one)
        start_response("200 OK", [("Content-Type", "text/plain")])
        if len(body) % 2 or environ["SERVER_PROTOCOL"] == "HTTP/1.0":
            return [b"ok"]  # HTTP/1.0 has no way to end parts but the end of the connection
        return (part for part in (b"o", b"k"))


ORIGIN_FORM = re.compile(r"(?:(?i:https?)://[^/?]*)?([^?]*)(?:\?(.*))?")


class AsyncRecorder:
    """The same for ASGI; an unfinished request is not noted. A scope has the path and the query of a target."""

    def __init__(self):
        self.seen = {}

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("no lifespan, no WebSockets")
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event["body"]
            if not event["more_body"]:
                break
        else:
            return
        target = scope["raw_path"].decode(), scope["query_string"].decode()
        self.seen.setdefault(scope["client"][1], []).append((scope["method"], target, body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if len(body) % 2 or scope["http_version"] == "1.0":
            await send({"type": "http.response.body", "body": b"ok"})
            return
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await send({"type": "http.response.body", "body": b"k"})


def as_in_scopes(expected):
    """Return the expected requests as an `AsyncRecorder` notes them."""
    split = [ORIGIN_FORM.fullmatch(target).groups("") for _, target, _ in expected]
    return [
        (method, (path or "/", query), body)
        for (method, _, body), (path, query) in zip(expected, split, strict=True)
    ]


APPLICATIONS = {"wsgi": Recorder, "asgi": AsyncRecorder}


@pytest.fixture(scope="module", params=APPLICATIONS)
def worker(request):
    application = APPLICATIONS[request.param]()
    handler = logging.handlers.BufferingHandler(1 << 30)
    handler.setLevel(logging.WARNING)
    logging.getLogger("preforkd").addHandler(handler)
    with serving(application, request.param, max_body=1000, spool=100, **BOUNDS) as worker:
        worker.application = application
        worker.errors = handler.buffer
        yield worker
    logging.getLogger("preforkd").removeHandler(handler)


STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@fuzzed
@given(
    st.lists(requests(), min_size=1, max_size=4),
    st.just([]) | MUTATIONS,
    CUTS,
    st.sampled_from(["half-close", "half-close", "close", "reset"]),
)
def test_the_loop(worker, sent, mutations, cuts, end):
    """The application sees exactly the requests that are complete, once, in their order, and whole;
    each has one answer, a refusal has one more. A client that leaves early may miss some of the end.
    """  # noqa: D205 - one claim
    data = mutated(b"".join(one.data for one in sent), mutations)
    expected, refusal = outcome([data])
    if isinstance(worker.application, AsyncRecorder):
        expected = as_in_scopes(expected)
    answers = b""
    with worker.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = sock.getsockname()[1]
        worker.application.seen.pop(port, None)
        try:
            for part in pieces(data, cuts):
                sock.sendall(part)
            if end == "half-close":
                sock.shutdown(socket.SHUT_WR)
                answers = read_all(sock)
        except OSError:
            end = "cut"  # it was refused while it was still sending
        if end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _until_alone(worker)
    seen = worker.application.seen.pop(port, [])
    if end == "half-close":
        assert seen == expected
        statuses = [int(status) for status in STATUS.findall(answers) if status != b"100"]
        assert statuses == [200] * len(expected) + [refusal] * (refusal is not None)
    else:
        assert seen == expected[: len(seen)]


def _until_alone(worker):
    # What was sent has been dealt with as soon as the worker holds no connection any more.
    deadline = time.monotonic() + 20
    while worker.slot.read(1e18).connections:
        assert worker.thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0)


def test_nothing_was_left_behind(worker):
    """After all that: no exception in the log, and the worker serves."""
    answer = worker.ask(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not worker.errors


@settings(fuzzed, max_examples=max(10, EXAMPLES // 10))
@given(
    st.lists(st.lists(st.tuples(requests(), st.booleans()), min_size=1, max_size=4), max_size=4),
    CUTS,
)
def test_connections_that_change_workers(pipelines, cuts):
    """Some requests take so long that the others are given away: each is still served once, in order."""
    application = Slow()
    ends = pair()
    handoffs = [HandoffQueue(ends[0].dup(), ends[1].dup()) for _ in range(2)]
    first = Worker(application, "wsgi", handoff=handoffs[0])
    workers = [first, Worker(application, "wsgi", beside=first, handoff=handoffs[1])]
    clients = []
    for pipeline in pipelines:
        sock = first.connect()
        data = b"".join(
            one.data.replace(b" HTTP/1.", b"&slow=%d HTTP/1." % slow, 1) for one, slow in pipeline
        )
        expected = []
        for one, _ in pipeline:
            expected.append((one.method, one.body))
            if not one.keep:
                break
        clients.append((sock, data, expected))
    threads = [threading.Thread(target=_send, args=(*one[:2], cuts)) for one in clients]
    for thread in threads:
        thread.start()
    for client in clients:
        sock, _, expected = client
        port = sock.getsockname()[1]
        try:
            statuses = STATUS.findall(read_all(sock))
            assert statuses == [b"200"] * len(expected)
        except ConnectionResetError:
            # What it sends behind the request that ends the connection may be answered by a reset.
            assert len(expected) < len(pipelines[clients.index(client)])
        assert application.seen.pop(port, []) == expected
        sock.close()
    for thread in threads:
        thread.join()
    for one in workers:
        one.close()
    for end in (*handoffs, *ends):
        end.close()


class Slow(Recorder):
    """Takes long where it is asked to."""

    def __call__(self, environ, start_response):
        if "slow=1" in environ["REQUEST_URI"]:
            time.sleep(0.015)  # three checks of the takeover thread
        body = environ["wsgi.input"].read()
        one = (environ["REQUEST_METHOD"], body)
        self.seen.setdefault(int(environ["REMOTE_PORT"]), []).append(one)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]


def _send(sock, data, cuts):
    try:
        for part in pieces(data, cuts):
            sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # an earlier request has ended the connection
