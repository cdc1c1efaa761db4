"""HTTP servers side by side: requests a second, CPU per request, latency.

    python tests/bench/servers.py [SCENARIO ...] [--rounds 5] [--seconds 3] [--peers NAME,NAME]

Installs what it needs. Each round runs every server once, in turn, so that what else the machine does
falls on all of them; medians are compared, with the spread from the lowest to the highest round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sidebyside import crowds, echoes, journal, mixed, peers, streams

PYTHON_PEERS = ["preforkd", "bjoern", "fastwsgi", "granian", "uWSGI http11-socket", "gunicorn gthread", "gunicorn sync"]  # fmt: skip
ALL = [*PYTHON_PEERS, "nginx, static", "puma 5:5", "unicorn"]


@dataclass(frozen=True)
class Run:
    """What one run of a client gave; latencies are in milliseconds."""

    rate: float
    bad: int = 0
    median: float | None = None
    p99: float | None = None


def wrk(*options: str, clients: int = 32) -> Callable[[int, int], Run]:
    """Return a client: wrk with one thread."""

    def run(port: int, seconds: int) -> Run:
        url = f"http://127.0.0.1:{port}/"
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", *options, url]
        text = _output(command)
        bad = sum(int(n) for n in re.findall(r"(?:Non-2xx or 3xx responses:|timeout) +(\d+)", text))
        return Run(
            _number(r"Requests/sec: +([\d.]+)", text),
            bad,
            _latency("50%", text),
            _latency("99%", text),
        )

    return run


def _latency(which: str, text: str) -> float:
    match = re.search(rf"{which} +([\d.]+)(us|ms|s)\b", text)
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[match[2]] if match else float("nan")


def h2load(port: int, seconds: int) -> Run:
    """Run h2load over HTTP/1.1, as another client than wrk."""
    text = _output(["h2load", "--h1", "-t1", "-c32", f"-D{seconds}", f"http://127.0.0.1:{port}/"])
    return Run(
        _number(r"finished in .*?, ([\d.]+) req/s", text), int(_number(r"(\d+) failed", text))
    )


def ab(port: int, seconds: int) -> Run:
    """Run ApacheBench with kept connections."""
    text = _output(
        ["ab", "-q", "-k", "-c32", f"-t{seconds}", "-n10000000", f"http://127.0.0.1:{port}/"]
    )
    return Run(
        _number(r"Requests per second: +([\d.]+)", text),
        int(_number(r"Failed requests: +(\d+)", text)),
    )


def fixed_rate(port: int, seconds: int) -> Run:
    """Run h2load over HTTP/1.1 at 4,800 requests a second, which no pool of 2 CPUs finds hard."""
    options = ("--h1", "-t1", "-c32", "--rps=150", f"-D{seconds}")
    text = _output(["h2load", *options, f"http://127.0.0.1:{port}/"])
    return Run(
        _number(r"finished in .*?, ([\d.]+) req/s", text), int(_number(r"(\d+) failed", text))
    )


def websocket(port: int, seconds: int) -> Run:
    """Run the client of WebSockets."""
    return Run(*echoes.echoes(port, seconds))


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"no {pattern} in {text}")
    return float(match[1])


UPLOAD = (
    "wrk.method = 'POST'; wrk.body = string.rep('x', 65536); "
    "wrk.headers['Content-Type'] = 'application/octet-stream'"
)
VARIED = (
    "n = 0; request = function() n = n + 1; "
    "return wrk.format('GET', '/?n=' .. n, {['X-Request-Id'] = tostring(n)}) end"
)


@dataclass(frozen=True)
class Scenario:
    """One comparison; ``script`` is wrk's Lua."""

    what: str
    target: str
    servers: list[str]
    client: Callable[[int, int], Run] | None = None
    script: str = ""
    options: tuple[str, ...] = ()
    workers: int = 2
    clients: int = 32


CLOSE = ("-H", "Connection: close")
SCENARIOS = {
    "keep": Scenario("hello, kept connections", "hello:wsgi", ALL),
    "close": Scenario("hello, connection closed each time", "hello:wsgi", ALL, options=CLOSE),
    "h2load": Scenario("hello, kept connections, h2load --h1", "hello:wsgi", ["preforkd", "bjoern", "granian"], h2load),
    "ab": Scenario("hello, kept connections, ab", "hello:wsgi", ["preforkd", "bjoern", "granian"], ab),
    "varied": Scenario("hello, each request with a different path and header", "hello:wsgi", PYTHON_PEERS, script=VARIED),
    "flask": Scenario("Flask hello", "flask_hello:app", PYTHON_PEERS),
    "django": Scenario("Django hello", "django_hello:app", PYTHON_PEERS),
    "upload": Scenario("64 KiB up", "hello:upload", PYTHON_PEERS, script=UPLOAD),
    "download": Scenario("1 MiB down", "hello:download", PYTHON_PEERS, clients=8),
    "asgi": Scenario("ASGI hello", "hello:asgi", ["preforkd", "uvicorn", "granian, ASGI"]),
    "asgi-close": Scenario("ASGI hello, connection closed each time", "hello:asgi", ["preforkd", "uvicorn", "granian, ASGI"], options=CLOSE),
    "websocket": Scenario("WebSocket echo of 64 bytes", "hello:asgi", ["preforkd", "uvicorn", "granian, WebSocket"], websocket),
    "fixed2": Scenario("hello, kept connections at a fixed rate, 2 workers", "hello:wsgi", ["preforkd", "granian"], fixed_rate),
    "fixed32": Scenario("hello, kept connections at a fixed rate, 32 workers", "hello:wsgi", ["preforkd", "granian"], fixed_rate, workers=32),
    "slot": Scenario("hello, what the slot costs", "hello:wsgi", ["preforkd", "preforkd, no slot"]),
    "journal": Scenario("hello, access log to the journal", "hello:wsgi", ["preforkd", "preforkd, access log to the journal"]),
}  # fmt: skip


def measure(
    client: Callable[[int, int], Run], server: peers.Server, seconds: int
) -> tuple[Run, float]:
    """Return one run, and the server's CPU microseconds per request."""
    before = server.cpu()
    run = client(server.port, seconds)
    return run, (server.cpu() - before) / (run.rate * seconds) * 1e6


def compare(scenario: Scenario, servers: list[str], rounds: int, seconds: int) -> str:
    """Run a scenario; return its table. All servers are up all the time; those not asked sleep."""
    results: dict[str, list[tuple[Run, float]]] = {name: [] for name in servers}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = list(scenario.options)
        if scenario.script:
            (folder / "script.lua").write_text(scenario.script)
            options += ["-s", str(folder / "script.lua")]
        client = scenario.client or wrk(*options, clients=scenario.clients)
        up = {}
        for name in servers:
            server = peers.running(name, scenario.target, scenario.workers, folder)
            up[name] = stack.enter_context(server)
            client(up[name].port, 1)  # warm
        for number in range(rounds):
            for name, server in up.items():
                print(f"{scenario.what}: round {number + 1}: {name}", file=sys.stderr)
                results[name].append(measure(client, server, seconds))
    base = statistics.median(run.rate for run, _ in results[servers[0]])
    lines = [
        f"### {scenario.what}\n",
        f"| server | requests/s | lowest–highest | {servers[0]} is | CPU µs/request | p50 / p99 ms | bad |",
        "|---|---|---|---|---|---|---|",
    ]
    for server, runs in sorted(results.items(), key=lambda item: -_median(item[1])):
        rates = sorted(run.rate for run, _ in runs)
        median = statistics.median(rates)
        cpu = statistics.median(cpu for _, cpu in runs)
        latency = ""
        if runs[0][0].p99 is not None:
            half = statistics.median(run.median or 0 for run, _ in runs)
            late = statistics.median(run.p99 or 0 for run, _ in runs)
            latency = f"{half:.2f} / {late:.2f}"
        lines.append(
            f"| {server} | {median:,.0f} | {rates[0]:,.0f}–{rates[-1]:,.0f} | {base / median:.2f} × "
            f"| {cpu:.1f} | {latency} | {sum(run.bad for run, _ in runs)} |"
        )
    return "\n".join(lines) + "\n"


def _median(runs: list[tuple[Run, float]]) -> float:
    return statistics.median(run.rate for run, _ in runs)


def machine() -> str:
    """Return the machine in a line."""
    command = [peers.PYTHON, "-c", "import platform; print(platform.python_version())"]
    version = _output(command).strip()
    return f"{os.cpu_count()} CPUs, Linux {platform.release()}, the servers' Python {version}"


def with_journal(scenario: Scenario, rounds: int, seconds: int) -> str:
    """Run a scenario with a journal that reads."""
    with journal.provided() as which:
        return compare(scenario, scenario.servers, rounds, seconds) + f"\n({which})\n"


SPECIAL = {"mixed": mixed.compare, "stream": streams.compare, "crowd": crowds.compare}


def main() -> None:
    """Compare and print."""
    names = [*SCENARIOS, *SPECIAL]
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(names)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--peers", help="compare these only")
    options = parser.parse_args()
    if unknown := set(options.scenario) - set(names):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    peers.install()
    print(f"{machine()}; {options.rounds} rounds of {options.seconds} s\n")
    for name in options.scenario or names:
        if name in SPECIAL:
            table = SPECIAL[name](options.rounds, options.seconds)
        elif name == "journal":
            table = with_journal(SCENARIOS[name], options.rounds, options.seconds)
        else:
            scenario = SCENARIOS[name]
            servers = options.peers.split(",") if options.peers else scenario.servers
            table = compare(scenario, servers, options.rounds, options.seconds)
        print(table, flush=True)


if __name__ == "__main__":
    main()
