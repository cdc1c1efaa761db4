"""The attack table against both HTTP servers, plain and by TLS: the expected answers, the same from both.

By TLS each row is delivered in one way, another one for each; with ``PREFORKD_FUZZ`` in all ways, for a night.
"""

import contextlib
import json
import os
import random
import re
import socket

import pytest

from preforkd.config.settings import HttpSettings, TlsSettings
from preforkd.http.head import RequestError
from tests.http.attacks import ATTACKS
from tests.http.delivery import BEHIND, MODES, expected_statuses
from tests.http.reading import Reading
from tests.worker.certificate import CERTIFICATE, KEY
from tests.worker.echoing import echo_asgi, echo_wsgi
from tests.worker.http_settings import client_context, listener_settings
from tests.worker.serving import serving

HTTP = HttpSettings(
    max_line=512, max_field=700, max_header=1024, max_fields=20, max_body=1000, spool=100
)
SETTINGS = {
    "plain": listener_settings(http=HTTP),
    "TLS": listener_settings(
        http=HTTP, tls=True, tls_section=TlsSettings(certificate=CERTIFICATE, key=KEY)
    ),
}
APPLICATIONS = {"wsgi": echo_wsgi, "asgi": echo_asgi}
CLIENT = client_context()
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
NOT_COMPARED = re.compile(rb"HTTP/1\.1 100 Continue\r\n\r\n|Date: [^\r]+\r\n")
"""Whether 100 Continue is sent depends on how much of a body has arrived already."""
BATCH = 16
ALL = "PREFORKD_FUZZ" in os.environ


@pytest.fixture(scope="module", params=SETTINGS)
def workers(request):
    with contextlib.ExitStack() as stack:
        yield {
            kind: stack.enter_context(serving(app, kind, whole=SETTINGS[request.param]))
            for kind, app in APPLICATIONS.items()
        }


def chosen(kind, mode, worker):
    """Return the rows of a kind that are delivered to a worker in this way."""
    every = 1 if ALL or not worker.settings.listen[0].tls else len(MODES)
    return ATTACKS[kind][list(MODES).index(mode) % every :: every]


def answers(worker, kind, mode):
    """Return all answers to each row of a kind, by its name; a few connections are open at a time."""
    rows, chance, found = chosen(kind, mode, worker), random.Random(kind), {}
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        socks = [_connect(worker) for _ in batch]
        for row, sock in zip(batch, socks, strict=True):
            with contextlib.suppress(OSError):  # refused while it was still sending
                for piece in MODES[mode](row, chance):
                    sock.sendall(piece)
        for row, sock in zip(batch, socks, strict=True):
            with sock:
                found[row.name] = NOT_COMPARED.sub(b"", _read(sock))
    return found


def _connect(worker):
    tls = worker.settings.listen[0].tls
    sock = worker.connect()
    if tls:
        sock = CLIENT.wrap_socket(sock, server_hostname="localhost")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _read(sock):
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    return data


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ATTACKS)
def test_the_answers_of_both(workers, kind, mode):
    """The statuses in the table; and every byte is the same from both, where the table gives no reason."""
    found = {shell: answers(worker, kind, mode) for shell, worker in workers.items()}
    rows = chosen(kind, mode, workers["wsgi"])
    for shell, of_rows in found.items():
        statuses = {n: [s.decode() for s in STATUS.findall(data)] for n, data in of_rows.items()}
        assert statuses == {r.name: expected_statuses(r, mode, shell) for r in rows}, shell
    for row in rows:
        if not row.asgi:
            first, *others = (of_rows[row.name] for of_rows in found.values())
            assert all(other == first for other in others), row.name


ECHO = re.compile(rb"\r\n\r\n(\[.*?\])(?=HTTP/1\.1|\Z)")


@pytest.mark.parametrize("kind", ATTACKS)
def test_what_reaches_the_applications(workers, kind):
    """Method, host, version and body of each request, as the engine reads them from the same bytes."""
    for shell, worker in workers.items():
        found = answers(worker, kind, "at once")
        for row in chosen(kind, "at once", worker):
            seen = [json.loads(text) for text in ECHO.findall(found[row.name])]
            wanted = [] if shell == "asgi" and row.asgi else requests(row.data + BEHIND)
            assert [(m, host, version, body) for m, _, _, host, version, body in seen] == wanted, (
                row.name
            )


def requests(data):
    """Return the requests that have an answer with a body, up to the last or the first refused one."""
    reading = Reading()
    with contextlib.suppress(RequestError):
        reading.feed(data)
    found = []
    for one in reading.requests:
        head, host = one.head, one.head.first(b"host") or b""
        if head.method != "HEAD":
            found.append(
                (head.method, host.decode("latin-1"), head.version, one.body.decode("latin-1"))
            )
        if not head.keep_alive:
            break
    return found
