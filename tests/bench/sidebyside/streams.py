"""The raw stream demo against other preforking greeters: server CPU per connection, and balance."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import peers

WORKERS = 4
SERVERS = ["preforkd, demo", "C", "Python, accept loop", "Python, socketserver", "Ruby", "Perl"]


@dataclass(frozen=True)
class Calls:
    """What one run gave: server CPU in µs per connection, and Jain's index over the workers."""

    cpu: float
    jain: float
    bad: int


def jain(counts: list[int]) -> float:
    """Return Jain's fairness index: 1 is even, 1/n is all with one."""
    return sum(counts) ** 2 / (WORKERS * sum(count * count for count in counts))


def _calls(server: peers.Server, clients: int, connections: int, program: Path) -> Calls:
    before = server.cpu()
    command = [str(program), str(server.port), str(clients), str(connections)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    counts = [int(line) for line in lines if line.isdigit()]
    bad = int(lines[-2].removeprefix("bad "))
    return Calls((server.cpu() - before) / sum(counts) * 1e6, jain(counts), bad)


def compare(rounds: int, seconds: int) -> str:
    """Return the table; a run has 4,000 connections one at a time, then many more from 16 clients."""
    results: dict[str, list[tuple[Calls, Calls]]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        callers = peers.compiled("callers.c", folder)
        for _ in range(rounds):
            for server in SERVERS:
                with peers.running(server, "", WORKERS, folder, http=False) as running:
                    _calls(running, 1, 400, callers)  # warm
                    light = _calls(running, 1, 4000, callers)
                    full = _calls(running, 16, 10_000 * seconds, callers)
                    results[server].append((light, full))
    base = _median([full.cpu for _, full in results["C"]])
    lines = [
        "### Raw stream: connect, greeting, close; 4 workers\n",
        "| server | CPU µs/connection, one at a time | 16 clients | lowest–highest | C × | Jain's index | bad |",
        "|---|---|---|---|---|---|---|",
    ]
    for server, runs in results.items():
        full = sorted(calls.cpu for _, calls in runs)
        lines.append(
            f"| {server} | {_median([calls.cpu for calls, _ in runs]):.1f} | {_median(full):.1f} | "
            f"{full[0]:.1f}–{full[-1]:.1f} | {_median(full) / base:.2f} | "
            f"{_median([calls.jain for calls, _ in runs]):.3f} / {_median([c.jain for _, c in runs]):.3f} | "
            f"{sum(light.bad + calls.bad for light, calls in runs)} |"
        )
    return "\n".join(lines) + "\n"


_median = statistics.median
