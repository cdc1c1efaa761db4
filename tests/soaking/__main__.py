"""A soak: load of all kinds, and faults at random, for some minutes; everything must be explained.

::

    python -m tests.soaking 10 --seed 7 --kind asgi

What happens follows from the seed. At the end each request must have been answered, or lost by a fault that
was done to the worker that had its connection; the master must have lost no descriptor, no memory, no
process and no shared page; and the log must tell of each fault, and complain of nothing else. The exit
status is 0 only then.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.process.faults import whole_again
from tests.process.service import Service, free_port
from tests.soaking.audit import audit, leaks, table
from tests.soaking.clients import Clients
from tests.soaking.faults_of_soak import REQUEST_PATIENCE, Faults, footprint, open_files, plan

HERE = Path(__file__).resolve().parent
WORKERS = 4
TARGETS = {
    "wsgi": "wsgi:site_under_soak:application",
    "asgi": "asgi:site_under_soak:asgi",
}
OPTIONS = {
    "wsgi": "hooks: site_under_soak:Hooks\nhttp: {spool: 64K, keep_alive: 3s}\nmemory: {refork: {after: 2000}}\n",
    "asgi": "http: {keep_alive: 3s}\n",
}
CALM = 3.0
"""Seconds at the end in which nothing is done to the service while the clients go on."""


def main() -> int:
    """Run the soak; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--kind", choices=TARGETS, default="wsgi")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the logs")
    options = parser.parse_args()
    steps = plan(options.seed, options.minutes * 60 - CALM)
    if options.kind == "asgi":
        steps = [
            step for step in steps if "refork" not in step.what
        ]  # only WSGI workers are forked from
    print(
        f"soak of {options.minutes:g} min, {options.kind}, seed {options.seed}: {len(steps)} steps",
        flush=True,
    )
    folder = Path(tempfile.mkdtemp(prefix="preforkd-soak-"))
    service = Service(folder)
    try:
        unexplained = soak(service, options.kind, options.seed, options.rate, steps)
    finally:
        service.close()
        if options.keep:
            print(f"the logs are in {folder}")
        else:
            shutil.rmtree(folder)
    return 1 if unexplained else 0


def soak(service: Service, kind: str, seed: int, rate: float, steps) -> list[str]:
    """Start a service, do all that to it, print the summary; return what is unexplained."""
    address = ("127.0.0.1", free_port())
    site_log = service.folder / "requests"
    site_log.touch()

    def settle(*, broken: str = "", elastic: bool = False) -> None:
        # In one piece: a reload by a signal may come at any moment.
        fresh = service.config.with_suffix(".new")
        size = "{min: 2, max: 8, spare: 1}" if elastic else WORKERS
        fresh.write_text(
            "app:\n"
            f"  target: {TARGETS[kind]}\n  directory: {HERE}\n"
            f"  environment: {{SOAK_REQUESTS: '{site_log}', SOAK_BREAK: '{broken}', "
            f"SOAK_REFORK: '{service.folder / 'refork'}'}}\n"
            f"listen: 127.0.0.1:{address[1]}\nworkers: {size}\n{OPTIONS[kind]}"
            "limits: {requests: 1000, age: 20s}\n"
            f"timeouts: {{request: {REQUEST_PATIENCE:g}s, drain: 10s}}\n"
        )
        fresh.replace(service.config)

    settle()
    service.start("--config", str(service.config))
    warm_up(service, address, seed)
    before = footprint(service)
    site_log.write_text("")  # the numbers of requests begin anew
    with Clients(address, rate=rate, seed=seed) as clients:
        faults = Faults(service, clients, site_log, settle, WORKERS)
        faults.run(steps)
        time.sleep(CALM)
    settle()
    service.control("reload")
    come_to_rest(service)
    after, files = footprint(service), open_files(service.pid)
    status = service.stop()
    verdict = audit(clients.records, faults, service.log)
    if leaked := leaks(before, after):
        verdict.unexplained += [*leaked, f"the master has open: {', '.join(files)}"]
    if status != 0:
        verdict.unexplained.append(f"the service ended with {status}")
    print(table(verdict, faults, before, after), flush=True)
    return verdict.unexplained


def warm_up(service: Service, address, seed: int) -> None:
    """Let everything happen once that makes the master grow: its modules, its caches, a reload."""
    with Clients(address, rate=100.0, seed=seed):
        for _ in range(3):
            service.control("reload", "--fresh")
        service.control("scale", "8")
        service.until(lambda status: status["ready"] == 8)
    come_to_rest(service)


def come_to_rest(service: Service) -> None:
    """Return when the pool has its own size, one generation, and nobody else is left."""
    service.control("scale", "auto")
    service.until(lambda status: status["state"] == "serving", timeout=60)
    whole_again(service, WORKERS, set())


if __name__ == "__main__":
    sys.exit(main())
