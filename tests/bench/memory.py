"""What N workers cost in memory: preforkd and its peers, three applications, 8, 16 and 32 workers.

    python3 tests/bench/memory.py            all of it, then README.md and memory.png
    python3 tests/bench/memory.py --quick    a fast look: 8 workers, few requests; prints the tables

Measured on this Debian and, as root, on Debian 13 in a root that debootstrap makes. Peers, libraries and
tools are installed from PyPI (into environments of the benchmark's own) and from Debian. Everything that
was made and measured is kept in $XDG_CACHE_HOME/preforkd-bench: the command may be interrupted, or told to
stop in time, and goes on with the next case when it is called again. A case is measured anew when the
code that it measures has changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from footprint import places, report
from footprint.measure import PLANS, Bench

HERE = Path(__file__).resolve().parent
OTHER = "trixie"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 workers, few requests")
    parser.add_argument(
        "--only",
        action="append",
        metavar="TEXT",
        help="cases whose title contains it; may be given again, and tells the order",
    )
    parser.add_argument("--peers", action="store_true", help="without preforkd")
    parser.add_argument("--here", action="store_true", help="this Debian only")
    parser.add_argument("--there", action="store_true", help=f"{OTHER} only")
    parser.add_argument(
        "--minutes", type=float, default=1e6, help="begin no new case after so long; status 75"
    )
    parser.add_argument("--report", action="store_true", help="write what is measured by now")
    parser.add_argument("--no-report", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(plan: str, chosen: argparse.Namespace) -> bool:
    """Measure what is wanted; return whether that is all."""
    done, begun = True, time.monotonic()
    if not chosen.there or places.codename() == OTHER:
        bench = Bench(PLANS[plan], chosen.minutes, peers_only=chosen.peers)
        done = all(bench.run(only) for only in chosen.only or [""])
    if done and not chosen.here and places.codename() != OTHER:
        root = places.Root(OTHER)
        left = chosen.minutes - (time.monotonic() - begun) / 60
        arguments = ["--here", "--no-report"]
        for only in chosen.only or []:
            arguments += ["--only", only]
        arguments += ["--minutes", str(left), *(["--quick"] if chosen.quick else [])]
        arguments += ["--peers"] if chosen.peers else []
        done = root.enter("python3", "tests/bench/memory.py", *arguments) == 0
    return done


def tell(plan: str) -> None:
    """Write README.md and the picture; of a quick look, print the tables."""
    folder = places.cache() / "results" / plan
    if plan == "quick":
        print(report.section(folder))
        return
    report.write(HERE / "README.md", folder)
    drawn = folder / OTHER if (folder / OTHER).exists() else folder / places.codename()
    python = places.cache() / "here/venv/bin/python"
    version = next(r["versions"]["python"] for r in report.results(drawn) if "versions" in r)
    title = f"Memory of all processes after 10,000 requests and a collection, CPython {version}"
    subprocess.run(
        [str(python), str(HERE / "footprint/plot.py"), title, str(HERE / "memory.png")],
        input=json.dumps(report.lines_to_draw(drawn)).encode(),
        check=True,
    )


def main() -> int:
    chosen = options()
    plan = "quick" if chosen.quick else "full"
    done = chosen.report or measure(plan, chosen)
    if not chosen.no_report and (done or chosen.report):
        tell(plan)
    if not done:
        print("not all is measured; call again to go on", file=sys.stderr)
    return 0 if done else places.TO_BE_CONTINUED


if __name__ == "__main__":
    sys.exit(main())
