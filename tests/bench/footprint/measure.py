"""Measures one case after the other, and keeps each result as a file: what is there is not done again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import load, places
from .processes import come_to_rest, family, memory_of, processor_time
from .servers import (
    APPS,
    MEASURED_UNRELATED,
    PREFORKD,
    REFORKING,
    SERVERS,
    TREE,
    UNRELATED,
    Case,
    Running,
    Skipped,
    started,
)

PAUSE = 0.003
"""Seconds that each request takes at least, while memory is measured; see apps/pause.py."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    name: str
    requests: tuple[int, ...]
    """After how many requests memory is measured."""
    cases: tuple[tuple[str, int], ...]
    """Applications and numbers of workers."""
    rounds: int
    """In each of which all are started anew, to measure their speed."""
    bursts: int
    """Measurements in a round."""
    seconds: int
    """Of each."""


FULL = Plan(
    "full",
    (0, 1_000, 10_000),
    tuple(
        (application, workers)
        for workers in (16, 8, 32)
        for application in ("django_site", "data", "hello")
    ),
    rounds=3,
    bursts=10,
    seconds=1,
)
QUICK = Plan(
    "quick", (0, 200, 1_000), (("django_site", 8), ("hello", 8)), rounds=1, bursts=2, seconds=1
)
PLANS = {plan.name: plan for plan in (FULL, QUICK)}


class Bench:
    """Measures on this Debian what is wanted and not measured yet."""

    def __init__(self, plan: Plan, minutes: float, *, peers_only: bool) -> None:
        self.plan = plan
        self._only = ""
        self._peers_only = peers_only
        self.python = places.environment(_own_folder())
        self.folder = places.cache() / "results" / plan.name / places.codename()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._until = time.monotonic() + minutes * 60
        self._marks = {
            True: _mark(APPS, Path(load.__file__), TREE / "preforkd"),
            False: _mark(APPS, Path(load.__file__)),
        }

    def run(self, only: str) -> bool:
        """Measure what has this in its title; return whether all that is wanted was measured."""
        self._only = only
        for application, workers in self.plan.cases:
            for server in SERVERS:
                if not self._do(
                    f"{application}, {workers} workers, {server}",
                    server in PREFORKD,
                    lambda s=server, a=application, w=workers: self._memory(s, a, w),
                ):
                    return False
        return all(
            self._do(f"speed, {application}", True, lambda a=application: self._speed(a))
            for application in ("hello", "django_site")
        )

    def _do(self, title: str, ours: bool, measure: Callable[[], dict]) -> bool:
        path = self.folder / (re.sub(r"[^a-z0-9]+", "-", title.lower()) + ".json")
        mark = self._marks[ours]
        if (
            self._only not in title
            or (ours and self._peers_only)
            or (path.exists() and json.loads(path.read_text())["mark"] == mark)
        ):
            return True
        if time.monotonic() > self._until:
            return False
        try:
            result = measure()
        except Skipped as reason:
            result = {"skipped": str(reason)}
        print(f"{places.codename()}: {title}: {_summary(result)}", flush=True)
        path.write_text(json.dumps({"title": title, "mark": mark, **result}, indent=1))
        return True

    def _memory(self, server: str, application: str, workers: int) -> dict:
        # Of unrelated processes some are measured, with their part of the requests.
        measured = MEASURED_UNRELATED if server == UNRELATED else workers
        stages: dict[str, dict[int, dict]] = {}
        with self._started(server, application, workers, PAUSE) as running:
            sending = load.Load(application, running.ports, measured)
            come_to_rest(running.roots, measured + 1)
            sent = 0
            for count in self.plan.requests:
                share = count * measured // workers
                sending.send(share - sent)
                sent = share
                stages[str(count)] = _look(running, measured)
            sending.collect(lambda: set(family(running.roots)), measured)
            stages["gc"] = _look(running, measured)
        if server in REFORKING and not set(stages["gc"]) - set(stages["0"]):
            raise Skipped("no worker was forked anew")
        for processes in stages.values():
            for pid, record in processes.items():
                record["worker"] = pid in sending.answered
        living = [sending.answered[pid] for pid in stages["gc"] if pid in sending.answered]
        return {
            "server": server,
            "application": application,
            "workers": workers,
            "versions": self._versions(),
            "answers": [min(living), max(living)],
            "stages": {name: list(processes.values()) for name, processes in stages.items()},
        }

    @contextlib.contextmanager
    def _started(
        self, server: str, application: str, workers: int, pause: float
    ) -> Iterator[Running]:
        with tempfile.TemporaryDirectory() as folder:
            case = Case(server, application, workers, self.python, Path(folder))
            with started(case, pause) as running:
                yield running

    def _speed(self, application: str) -> dict:
        # All run at once, and are asked in turn, each time in another order; what happens to be where in
        # memory is decided anew in each round, since all are started anew.
        variants = [server for server in PREFORKD if server not in REFORKING]
        rates: dict[str, list[float]] = {server: [] for server in variants}
        costs: dict[str, list[float]] = {server: [] for server in variants}
        skipped: dict[str, str] = {}
        for _ in range(self.plan.rounds):
            with contextlib.ExitStack() as stack:
                running = {}
                for server in variants:
                    try:
                        started_one = self._started(server, application, 2, 0)
                        running[server] = stack.enter_context(started_one)
                    except Skipped as reason:
                        skipped[server] = str(reason)
                for one in running.values():
                    come_to_rest(one.roots, 3)
                    _wrk(one.ports[0], application, 1)
                order = list(running)
                for _ in range(self.plan.bursts):
                    order.append(order.pop(0))
                    for server in order:
                        rate, cost = _burst(running[server], application, self.plan.seconds)
                        rates[server].append(rate)
                        costs[server].append(cost)
        for server in skipped:
            rates.pop(server, None)
            costs.pop(server, None)
        base = rates[variants[0]]
        return {
            "speed": application,
            "rates": rates,
            "medians": {server: statistics.median(rate) for server, rate in rates.items()},
            "shares": {
                server: statistics.median(
                    ours / other for ours, other in zip(rate, base, strict=True)
                )
                for server, rate in rates.items()
            },
            "costs": {server: statistics.median(cost) for server, cost in costs.items()},
            "skipped_servers": skipped,
            "versions": self._versions(),
        }

    def _versions(self) -> dict[str, str]:
        script = (
            "import importlib.metadata as m, json, platform;"
            f"names = {places.PEERS!r};"
            "print(json.dumps({'python': platform.python_version(), "
            "**{name: m.version(name) for name in names}}))"
        )
        versions = json.loads(places.run(str(self.python), "-c", script))
        versions["uWSGI"] = places.run("uwsgi", "--version").strip()
        return versions


def _own_folder() -> Path:
    # In a root of its own the environment lies in the root: a bind mount is for what is shared.
    folder = Path("/srv/bench") if Path("/srv/preforkd") == places.TREE else places.cache() / "here"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _look(running: Running, measured: int) -> dict[int, dict]:
    come_to_rest(running.roots, measured + 1)
    return {pid: memory_of(pid).as_record() for pid in family(running.roots)}


def _mark(*places_of_code: Path) -> str:
    digest = hashlib.sha256()
    for place in places_of_code:
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in files:
            if path.suffix in {".py", ".html"}:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _wrk(port: int, application: str, seconds: int) -> float:
    """Return requests a second over 16 kept connections."""
    following = load.paths(application)
    listing = ",".join(json.dumps(following()) for _ in range(200))
    script = (
        f"local paths = {{{listing}}}\nlocal turn = 0\n"
        "request = function() turn = turn % #paths + 1; return wrk.format('GET', paths[turn]) end\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        address = f"http://127.0.0.1:{port}/"
        output = places.run("wrk", "-t1", "-c16", f"-d{seconds}s", "-s", file.name, address)
    bad = re.search(r"Non-2xx.*|Socket errors.*", output)
    assert bad is None, f"{address}: {bad[0] if bad else ''}"
    return float(re.search(r"Requests/sec: +([\d.]+)", output)[1])


def _burst(running: Running, application: str, seconds: int) -> tuple[float, float]:
    """Return requests a second, and the processor time of each in µs."""
    before = processor_time(running.roots)
    rate = _wrk(running.ports[0], application, seconds)
    return rate, (processor_time(running.roots) - before) / (rate * seconds) * 1e6


def _summary(result: dict) -> str:
    if "skipped" in result:
        return f"skipped: {result['skipped']}"
    if "medians" in result:
        return ", ".join(f"{name} {rate:.0f}/s" for name, rate in result["medians"].items())
    from .report import figures

    stages = figures(result)
    return "; ".join(
        f"{stage}: {numbers.total:.0f} MB, {numbers.worker:.1f} per worker"
        for stage, numbers in stages.items()
    )
