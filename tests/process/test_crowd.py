"""A crowd of idle and half-heard clients: it costs little memory, and others nothing."""

import contextlib
import resource
import socket
from pathlib import Path

import pytest

from tests.process.service import HERE, ask, free_port

IDLE, SLOW = 3000, 300
GET = b"GET /?id=1 HTTP/1.1\r\nHost: h\r\n"


@pytest.fixture
def descriptors():
    """Allow this test as many descriptors as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + SLOW + 500:
        pytest.skip(f"only {hard} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def private(pid):
    """Return a process's private memory in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def connections(status):
    return sum(row["connections"] for row in status["workers"])


def test_an_idle_connection_costs_less_than_20_kib(service, descriptors):
    """3,000 that were answered once and 300 with half a head, 4 workers: all stay, and fresh ones are served."""
    port = free_port()
    service.configure(
        f"app: {{target: 'wsgi:echo:application', directory: {HERE}}}\n"
        f"listen: 127.0.0.1:{port}\nworkers: 4\nhttp: {{keep_alive: 10min, header_timeout: 10min}}\n"
    )
    service.start("--config", str(service.config))
    for _ in range(400):
        assert ask(("127.0.0.1", port)).startswith(b"HTTP/1.1 200 ")
    workers = service.workers()
    before = sum(map(private, workers))
    with contextlib.ExitStack() as stack:
        crowd = []
        for number in range(IDLE + SLOW):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            sock.sendall(GET + (b"\r\n" if number < IDLE else b"X-Slow: "))
            if number < IDLE:
                assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
                crowd.append(sock)
        for _ in range(100):
            assert ask(("127.0.0.1", port)).startswith(b"HTTP/1.1 200 ")
        service.until(lambda status: connections(status) == IDLE + SLOW)
        each = (sum(map(private, workers)) - before) / (IDLE + SLOW)
        assert service.workers() == workers
        assert each < 20 * 1024
        for sock in crowd[::100]:
            sock.sendall(GET + b"\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


APPLICATIONS = """
def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})
"""


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_silent_clients_are_closed_in_time(service, kind):
    """The kernel keeps them a second from the workers, which then bound their time as that of all others."""
    settings = "workers: 1\nhttp: {header_timeout: 1s}"
    address = service.serve("both", APPLICATIONS, settings, f"{kind}:both:{kind}")
    silent = [socket.create_connection(address, 30) for _ in range(10)]
    assert b"served" in ask(address)
    assert [sock.recv(1) for sock in silent] == [b""] * len(silent)
    for sock in silent:
        sock.close()
    (row,) = service.status()["workers"]
    assert row["connections"] == 0
