"""What the access log costs: requests a second with it, as a share of those without.

    python tests/bench/access_log.py [--rounds 5] [--seconds 3]

Needs wrk. Each round measures every variant once, in turn, so that what else the machine does falls on
all of them; medians are compared.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE))

from tests.process.service import Service, free_port  # noqa: E402

VARIANTS = {
    "off": "{target: off}",
    "file, combined": "{target: FOLDER/access, format: combined}",
    "file, json": "{target: FOLDER/access, format: json}",
    "journal": "{target: journal}",
}


def measure(variant: str, seconds: float) -> float:
    """Return requests a second of the demo application with 16 kept connections."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        service = Service(folder)
        service.configure(
            "app: {target: 'wsgi:preforkd.apps.demo:application'}\n"
            f"listen: 127.0.0.1:{port}\nworkers: 2\n"
            f"access_log: {VARIANTS[variant].replace('FOLDER', name)}\n"
        )
        try:
            service.start("--config", str(service.config))
            done = subprocess.run(
                ["wrk", "-t1", "-c16", f"-d{seconds}s", f"http://127.0.0.1:{port}/"],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            service.close()
    return float(re.search(r"Requests/sec: +([\d.]+)", done.stdout)[1])


def journal_listens() -> bool:
    """Tell whether there is a journal to write to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        return sock.connect_ex("/run/systemd/journal/socket") == 0


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed")
    variants = [name for name in VARIANTS if name != "journal" or journal_listens()]
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name in variants:
            rates[name].append(measure(name, options.seconds))
    base = statistics.median(rates["off"])
    for name in variants:
        median = statistics.median(rates[name])
        print(f"{name:<16} {median:10.0f} requests/s   {median / base:.2f}")


if __name__ == "__main__":
    main()
