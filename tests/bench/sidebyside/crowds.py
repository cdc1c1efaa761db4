"""10,000 idle kept connections and 1,000 that send half a head: what a fresh client notices of them."""

from __future__ import annotations

import contextlib
import resource
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import peers

WORKERS, IDLE, SLOW, FRESH = 4, 10_000, 1_000, 400
SERVERS = ["preforkd, patient", "bjoern", "granian", "uWSGI http11-socket", "gunicorn gthread"]
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n"
PATIENCE = 1.0
"""Seconds after which a fresh client gives up."""
GIVE_UP = 5
"""Clients that were not served, after which no more are tried."""


@dataclass(frozen=True)
class Fresh:
    """What fresh clients met: milliseconds, and how many were not served."""

    median: float
    p99: float
    failed: int


def fresh(port: int) -> Fresh:
    """Send requests, each over a connection of its own."""
    times, failed = [], 0
    for _ in range(FRESH):
        begun = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
                sock.sendall(REQUEST + b"Connection: close\r\n\r\n")
                if not sock.recv(65536).startswith(b"HTTP/1.1 200"):
                    raise OSError("no answer")
            times.append((time.monotonic() - begun) * 1e3)
        except OSError:
            failed += 1
            if failed == GIVE_UP:
                break
    times.sort()
    if not times:
        return Fresh(float("nan"), float("nan"), failed)
    return Fresh(statistics.median(times), times[int(len(times) * 0.99)], failed)


def crowd(port: int, stack: contextlib.ExitStack) -> int:
    """Open the connections; return how many of the idle ones got their answer and are still open."""
    socks, refused = [], 0
    for number in range(IDLE + SLOW):
        sock = stack.enter_context(socket.socket())
        sock.settimeout(PATIENCE)
        try:
            sock.bind((f"127.0.1.{number % 200 + 1}", 0))
            sock.connect(("127.0.0.1", port))
            sock.sendall(REQUEST + (b"\r\n" if number < IDLE else b"X-Slow: "))
        except OSError:
            refused += 1
            if refused == GIVE_UP:
                break
            continue
        if number < IDLE:
            socks.append(sock)
        if number == 200 and not _answered(socks):
            break  # it serves no more than it has workers; more of them change nothing
    return len(_answered(socks))


def _answered(socks: list[socket.socket]) -> list[socket.socket]:
    open_ones = []
    deadline = time.monotonic() + PATIENCE
    for sock in socks:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        with contextlib.suppress(OSError):
            if sock.recv(65536, socket.MSG_PEEK):
                open_ones.append(sock)
                deadline = time.monotonic() + PATIENCE
    return open_ones


def compare(rounds: int, _seconds: int) -> str:
    """Return the table."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    results: dict[str, list[tuple[Fresh, Fresh, int, float]]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            for server in SERVERS:
                results[server].append(_measure(server, Path(name)))
                print(server, *results[server][-1], file=sys.stderr, flush=True)
    lines = [
        f"### A new client, with {IDLE:,} idle and {SLOW:,} slow connections; {WORKERS} workers\n",
        "| server | p50 / p99 ms without | with | ratio | idle ones open | KiB per connection | not served |",
        "|---|---|---|---|---|---|---|",
    ]
    for server, runs in results.items():
        cells = [
            statistics.median(getattr(run[which], what) for run in runs)
            for which in (0, 1)
            for what in ("median", "p99")
        ]
        opened = statistics.median(run[2] for run in runs)
        lines.append(
            f"| {server} | {cells[0]:.2f} / {cells[1]:.2f} | {cells[2]:.2f} / {cells[3]:.2f} | "
            f"{cells[2] / cells[0]:.2f} / {cells[3] / cells[1]:.2f} | {opened:,.0f} | "
            f"{statistics.median(run[3] for run in runs):.1f} | {sum(run[1].failed for run in runs)} |"
        )
    return "\n".join(lines) + "\n"


def _measure(server: str, folder: Path) -> tuple[Fresh, Fresh, int, float]:
    with peers.running(server, "hello:wsgi", WORKERS, folder) as running:
        fresh(running.port)  # warm
        without, memory = fresh(running.port), running.pss()
        with contextlib.ExitStack() as stack:
            opened = crowd(running.port, stack)
            kib = (running.pss() - memory) / 1024 / (IDLE + SLOW)
            return without, fresh(running.port), opened, kib
