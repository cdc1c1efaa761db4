"""A burst of 64 clients against two workers of an application that takes 100 ms: how soon a pool has grown.

    python tests/bench/burst.py [--rounds 5] [--clients 64] [--requests 3] [--peers preforkd,uWSGI]

Installs what it needs (as root). In each round each server meets the burst with a pool that grows from 2 to 32
workers, and then with a fixed pool of the size that the first one had in the end. Medians of the rounds
are compared.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from servers import machine
from sidebyside import peers, pools

REQUEST = b"GET /nap HTTP/1.0\r\nHost: h\r\n\r\n"
PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent and answered, who answered it and when he began (monotonic seconds)."""

    nth: int
    sent: float
    ended: float
    pid: int
    begun: float

    @property
    def took(self) -> float:
        """How long the client waited, in milliseconds."""
        return (self.ended - self.sent) * 1e3


@dataclass(frozen=True)
class Burst:
    """What a burst gave: the workers that took part, and milliseconds."""

    workers: int
    grown: float
    """From the burst until the last one of the workers began its first request."""
    first: tuple[float, float]
    """Median and p99 of the requests that are the burst itself."""
    all: tuple[float, float]


class Client:
    """One of the crowd: its requests follow each other, each over a connection of its own."""

    def __init__(self, port: int, requests: int, poll: selectors.BaseSelector) -> None:
        self._port, self._rest, self._poll = port, requests, poll
        self._nth = 0
        self.answers: list[Answer] = []
        self._connect()

    def _connect(self) -> None:
        self._sent, self._data = time.monotonic(), b""
        self._rest -= 1
        self._nth += 1
        self._sock = socket.socket()
        self._sock.setblocking(False)
        self._sock.connect_ex(("127.0.0.1", self._port))
        self._poll.register(self._sock, selectors.EVENT_WRITE, self)

    def act(self, events: int) -> None:
        """Send, or receive; begin anew when the answer is complete."""
        if events & selectors.EVENT_WRITE:
            self._sock.sendall(REQUEST)
            self._poll.modify(self._sock, selectors.EVENT_READ, self)
            return
        data = self._sock.recv(65536)
        self._data += data
        if data:
            return
        ended = time.monotonic()
        self._poll.unregister(self._sock)
        self._sock.close()
        head, _, body = self._data.partition(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise OSError(f"not answered: {self._data[:200]!r}")
        pid, begun = body.split()
        self.answers.append(Answer(self._nth, self._sent, ended, int(pid), float(begun)))
        if self._rest:
            self._connect()


def burst(port: int, clients: int, requests: int) -> Burst:
    """Let so many clients come at once."""
    with selectors.DefaultSelector() as poll:
        began = time.monotonic()
        crowd = [Client(port, requests, poll) for _ in range(clients)]
        while poll.get_map():
            events = poll.select(PATIENCE)
            if not events:
                raise TimeoutError(f"no answer within {PATIENCE:g} s")
            for key, which in events:
                key.data.act(which)
    answers = [answer for client in crowd for answer in client.answers]
    births: dict[int, float] = {}
    for answer in answers:
        births[answer.pid] = min(births.get(answer.pid, answer.begun), answer.begun)
    grown = (max(births.values()) - began) * 1e3
    first = _two([answer.took for answer in answers if answer.nth == 1])
    return Burst(len(births), grown, first, _two([answer.took for answer in answers]))


def _two(times: list[float]) -> tuple[float, float]:
    times = sorted(times)
    return statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]


def measure(
    name: str, command: peers.Command, workers: int, folder: Path, options: argparse.Namespace
) -> Burst:
    """Start a server, let the clients come, and return what they met."""
    with peers.started(name, command, "naps:wsgi", workers, folder) as server:
        time.sleep(options.calm)
        return burst(server.port, options.clients, options.requests)


def compare(options: argparse.Namespace) -> str:
    """Run all rounds; return the table."""
    wanted = options.peers.split(",") if options.peers else [pool.name for pool in pools.POOLS]
    chosen = [pool for pool in pools.POOLS if pool.name in wanted]
    results: dict[tuple[str, str], list[tuple[Burst, Burst]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(options.rounds):
            for pool in chosen:
                for which, command in pool.dynamic.items():
                    print(f"round {number + 1}: {pool.name}, {which}", file=sys.stderr)
                    grown = measure(f"{pool.name} {which}", command, pools.MOST, folder, options)
                    size = max(pools.LEAST, grown.workers)
                    fixed = measure(f"{pool.name} fixed", pool.fixed, size, folder, options)
                    results.setdefault((pool.name, which), []).append((grown, fixed))
    return _table(results)


def _table(results: dict[tuple[str, str], list[tuple[Burst, Burst]]]) -> str:
    columns = ["pool", "workers", "grown within ms", "burst: p50 / p99 ms", "fixed pool", "p99 is"]
    columns += ["all: p50 / p99 ms", "fixed pool", "p99 is"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for (name, which), runs in results.items():
        grown = sorted(run.grown for run, _ in runs)
        sizes = sorted(run.workers for run, _ in runs)
        size = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        cells = [f"{name}, {which}", size]
        cells.append(f"{statistics.median(grown):.0f} ({grown[0]:.0f} to {grown[-1]:.0f})")
        for what in ("first", "all"):
            (half, late), (base, base_late) = (_medians(runs, what, index) for index in (0, 1))
            ratio = statistics.median(
                getattr(run, what)[1] / getattr(fixed, what)[1] for run, fixed in runs
            )
            cells += [f"{half:.0f} / {late:.0f}", f"{base:.0f} / {base_late:.0f}", f"{ratio:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _medians(runs: list[tuple[Burst, Burst]], what: str, index: int) -> tuple[float, float]:
    pairs = [getattr(run[index], what) for run in runs]
    return statistics.median(pair[0] for pair in pairs), statistics.median(
        pair[1] for pair in pairs
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--requests", type=int, default=3, help="of each client, one after the other"
    )
    parser.add_argument("--calm", type=float, default=1.5, help="seconds between start and burst")
    parser.add_argument("--peers", help="compare these only")
    options = parser.parse_args()
    pools.install()
    print(f"{machine()}; {options.rounds} rounds of {options.clients} clients\n")
    print(compare(options), flush=True)


if __name__ == "__main__":
    main()
