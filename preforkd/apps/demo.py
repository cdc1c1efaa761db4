"""The built-in demo: each worker greets the connections that it accepts.

``nc 127.0.0.1 8080`` prints one line and ends.  The same module has a small WSGI application, for
trying ``preforkd run wsgi:preforkd.apps.demo:application``.
"""

import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

_served = 0


def greet(connection: socket.socket, _peer: object) -> None:
    """Send one line with the worker's number, its pid and its count of connections."""
    global _served  # noqa: PLW0603 - the count is the point: each worker has its own copy
    _served += 1
    worker = os.environ.get("PREFORKD_WORKER", "?")
    line = f"Hello from preforkd worker {worker} (pid {os.getpid()}), connection {_served}\r\n"
    connection.sendall(line.encode())


def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer every request with one line (PEP 3333)."""
    worker = os.environ.get("PREFORKD_WORKER", "?")
    body = f"Hello from preforkd worker {worker} (pid {os.getpid()})\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
