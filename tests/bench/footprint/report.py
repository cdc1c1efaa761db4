"""From what was measured to the tables of README.md; megabytes are 10^6 bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .servers import SERVERS, UNRELATED

BEGIN, END = "<!-- memory.py -->", "<!-- /memory.py -->"
_MB = 1e6
_NOTHING = "-"
_NAMES = {
    "django_site": "Django (admin, templates, 200,000 records)",
    "data": "numpy, pandas, a million records",
    "hello": "hello",
}


@dataclass(frozen=True)
class Figures:
    """Megabytes: PSS of all processes, USS of a worker (mean), the largest, RSS and USS of others."""

    total: float
    worker: float
    worst: float
    others: dict[str, tuple[float, float]]


def figures(record: dict) -> dict[str, Figures]:
    """Return the figures of each stage of a case."""
    count = record["workers"]
    result = {}
    for stage, processes in record["stages"].items():
        workers = [process for process in processes if process["worker"]]
        if not workers:
            # Before the first request after a refork, or of it: nobody was there at another stage.
            continue
        others = {
            process["title"]: (process["rss"] / _MB, process["uss"] / _MB)
            for process in processes
            if not process["worker"]
        }
        if record["server"] == UNRELATED:
            # Their own pages as often as there are workers, those of files once; that each has a
            # master of its own is not counted.
            own = [process["anonymous"] for process in workers]
            files = max(process["rss"] - process["anonymous"] for process in workers)
            total = count * sum(own) / len(own) + files
        else:
            own = [process["uss"] for process in workers]
            total = sum(process["pss"] for process in processes)
        result[stage] = Figures(total / _MB, sum(own) / len(own) / _MB, max(own) / _MB, others)
    return result


def results(folder: Path) -> list[dict]:
    """Read what was measured in one place."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def _case(records: list[dict], application: str, server: str, workers: int) -> dict | None:
    for record in records:
        if (record.get("application"), record.get("server"), record.get("workers")) == (
            application,
            server,
            workers,
        ):
            return record
    return None


def _number(value: float | None, digits: int = 0) -> str:
    return _NOTHING if value is None else f"{value:.{digits}f}"


def table(records: list[dict], application: str) -> list[str]:
    """Return the rows of one application: private memory at each stage, totals for each size."""
    sizes = sorted({r["workers"] for r in records if r.get("application") == application})
    if not sizes:
        return []
    middle = 16 if 16 in sizes else sizes[0]
    stages = next(list(r["stages"]) for r in records if r.get("application") == application)
    head = [
        *(f"after {int(stage):,}" if stage.isdecimal() else "gc" for stage in stages),
        *(f"total, {size}" for size in sizes),
    ]
    rows = ["| Server | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for server in SERVERS:
        cells = []
        found = _case(records, application, server, middle)
        numbers = figures(found) if found else {}
        cells += [_number(numbers[s].worker if s in numbers else None, 1) for s in stages]
        for size in sizes:
            found = _case(records, application, server, size)
            numbers = figures(found) if found else {}
            cells.append(_number(numbers["gc"].total if "gc" in numbers else None))
        if any(cell != _NOTHING for cell in cells):
            rows.append(f"| {server} | " + " | ".join(cells) + " |")
    return rows


def goals(records: list[dict], python: str) -> list[str]:
    """Return each goal of the project with what was measured."""

    def last(server: str) -> Figures | None:
        found = _case(records, "django_site", server, 16)
        return figures(found)["gc"] if found else None

    rows = ["| Goal | Measured | |", "|---|---|---|"]

    def row(text: str, value: float | None, most: float, unit: str = "MB") -> None:
        if value is not None:
            met = "met" if value <= most else "**missed**"
            rows.append(f"| {text} | {value:.{2 if unit == '' else 1}f} {unit} | {met} |")

    plain, warm = last("preforkd"), last("preforkd, warm-up")
    reforked, immortal = last("preforkd, warm-up, refork"), last("preforkd, warm-up, immortal")
    both = last("preforkd, warm-up, immortal, refork")
    if python.startswith("3.11"):
        best = reforked or warm
        row("frozen and reforked: at most 21 MB private", best and best.worker, 21)
    else:
        row("default settings: at most 20 MB private", plain and plain.worker, 20)
        row("warm and immortal: at most 6 MB private", immortal and immortal.worker, 6)
    for server, share in ((UNRELATED, 8), ("gunicorn --preload", 3)):
        other = last(server)
        for name, ours in (
            ("default settings", plain),
            ("warm and immortal", immortal),
            ("warm, immortal and reforked", both),
        ):
            if other and ours:
                text = f"{name}: total at most 1/{share} of {server}"
                row(text, ours.total / other.total, 1 / share, "")
    return rows if len(rows) > 2 else []


def speed(records: list[dict]) -> list[str]:
    """Return the speed of each way to run preforkd, as a share of the default."""
    rows = ["| Application | Settings | requests/s | share | CPU µs/request |", "|---" * 5 + "|"]
    for record in records:
        for server, share in record.get("shares", {}).items():
            rate, cost = record["medians"][server], record["costs"][server]
            rows.append(
                f"| {record['speed']} | {server} | {rate:,.0f} | {share:.3f} | {cost:.1f} |"
            )
    return rows if len(rows) > 2 else []


def section(folder: Path) -> str:
    """Return the section of README.md for what was measured in all places."""
    lines = [BEGIN, ""]
    for place in sorted(folder.iterdir()):
        records = results(place)
        done = next((r for r in records if "versions" in r), None)
        if done is None:
            continue
        versions = done["versions"]
        python = versions.pop("python")
        lines += [f"### CPython {python} (Debian {place.name})", ""]
        lines += [", ".join(f"{name} {version}" for name, version in versions.items()) + ".", ""]
        for rows in (goals(records, python), speed(records)):
            lines += [*rows, ""] if rows else []
        for application, name in _NAMES.items():
            rows = table(records, application)
            lines += [f"**{name}**", "", *rows, ""] if rows else []
        # "hello, 8 workers, SERVER": each server once; "speed, hello" is a comparison of several.
        skipped = {
            r["title"].split(", ", 2)[2]: r["skipped"]
            for r in records
            if "skipped" in r and not r["title"].startswith("speed")
        }
        lines += [f"- {name}: not measured: {reason}" for name, reason in sorted(skipped.items())]
        lines += [""] if skipped else []
    return "\n".join([*lines, END])


def write(readme: Path, folder: Path) -> None:
    """Put the section into the file, in the place of the one that is there."""
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + section(folder) + after)


def lines_to_draw(folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return for each application and server the totals over the numbers of workers."""
    drawn: dict[str, dict[str, list[tuple[int, float]]]] = {}
    records = results(folder)
    for application, name in _NAMES.items():
        if application == "hello":
            continue
        for server in SERVERS:
            points = sorted(
                (record["workers"], figures(record)["gc"].total)
                for record in records
                if record.get("application") == application and record.get("server") == server
            )
            if points:
                drawn.setdefault(name, {})[server] = points
    return drawn
