"""A connection whose client is the test, without a loop."""

import socket
from contextlib import contextmanager

from preforkd.apps import wsgi
from preforkd.http.bounds import Bounds, Budget
from preforkd.worker.listener_context import ListenerContext
from preforkd.worker.wsgi.connection import Connection
from preforkd.worker.wsgi.outbox import OutputLimits

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n"


@contextmanager
def connected(**bounds):
    """Yield a connection and its client's socket."""
    context = ListenerContext(
        0,
        Bounds(**bounds),
        wsgi.environ_builder("localhost", "80", secure=False, threads=False),
        probes={},
    )
    client, server = socket.socketpair()
    client.settimeout(20)
    limits = OutputLimits(write_timeout=5, budget=Budget())
    connection = Connection(server, context, limits, "192.0.2.1", "4000")
    with client, server:
        yield connection, client
        connection.close()
