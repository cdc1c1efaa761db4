"""1 request in 50 takes 500 ms: how long the others take, whose workers are free now and then.

Kept connections that ask at random moments, at a rate that one worker nearly bears: what a fast request
waits for is a slow one that has its worker; that all workers are busy is rarer than 1 in 100.
"""

from __future__ import annotations

import random
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from . import peers

WORKERS, CLIENTS, RATE, SLOW = 4, 16, 40, 50
SERVERS = [
    "preforkd",
    "gunicorn gthread",
    "gunicorn sync",
    "uWSGI http11-socket",
    "uWSGI http router",
    "granian",
    "bjoern",
]
PATIENCE = 10.0
GET = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"


class _Client(threading.Thread):
    """One kept connection, made anew where the server has closed it."""

    def __init__(self, port: int, seed: int, until: float) -> None:
        super().__init__()
        self.fast: list[float] = []
        self.bad = 0
        self._port = port
        self._random = random.Random(seed)
        self._until = until
        self._sock: socket.socket | None = None

    def run(self) -> None:
        number = self._random.randrange(SLOW)
        while True:
            time.sleep(self._random.expovariate(RATE / CLIENTS))
            if time.monotonic() > self._until:
                break
            number += 1
            slow = number % SLOW == 0
            begun = time.monotonic()
            try:
                self._ask(b"/slow" if slow else b"/")
            except OSError:
                self.bad += 1
                self._part()
            if not slow:
                self.fast.append((time.monotonic() - begun) * 1e3)
        self._part()

    def _ask(self, path: bytes) -> None:
        if self._sock is None:
            self._sock = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
        self._sock.sendall(GET % path)
        data = b""
        while not data.endswith(b"Hello, World!"):
            piece = self._sock.recv(65536)
            if not piece:
                raise ConnectionResetError("no answer")
            data += piece
        if b"connection: close" in data.lower():
            self._part()

    def _part(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _run(port: int, seconds: int, seed: int) -> tuple[list[float], int]:
    until = time.monotonic() + seconds
    clients = [_Client(port, seed * 1000 + number, until) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return sorted(time for client in clients for time in client.fast), sum(c.bad for c in clients)


def compare(rounds: int, seconds: int) -> str:
    """Return the table; each round has the same requests for every server, and takes twice the seconds."""
    results: dict[str, list[tuple[list[float], int]]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            for server in SERVERS:
                with peers.running(server, "hello:mixed", WORKERS, Path(name)) as running:
                    results[server].append(_run(running.port, 2 * seconds, number))
    what = f"{WORKERS} workers, {CLIENTS} kept connections, {RATE} requests/s"
    lines = [
        f"### 1 request in {SLOW} takes 500 ms; {what}\n",
        "| server | fast requests | their p50 ms | p99 ms | lowest–highest p99 | not served |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    for server, runs in results.items():
        times = sorted(time for fast, _ in runs for time in fast)
        p99, each = _p99(times), sorted(_p99(fast) for fast, _ in runs)
        cells = [
            server,
            f"{len(times):,}",
            f"{statistics.median(times):.2f}",
            f"{p99:.1f}",
            f"{each[0]:.1f}–{each[-1]:.1f}",
            str(sum(bad for _, bad in runs)),
        ]
        rows.append((p99, f"| {' | '.join(cells)} |"))
    return "\n".join([*lines, *(row for _, row in sorted(rows))]) + "\n"


def _p99(times: list[float]) -> float:
    return times[min(len(times) - 1, int(len(times) * 0.99))]
