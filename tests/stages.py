"""Run the tests stage after stage, and print a line for each: counts and seconds.

::

    sh packaging/bootstrap test                      lint, unit, simulation and process
    sh packaging/bootstrap test --all                with newer and systemd: what decides about a change
    sh packaging/bootstrap test --stage unit lint    these; --stage nightly: the soak and what else takes long

A stage that fails does not stop the others; the exit status is 1 if any failed. The failures of all stages
are listed once more at the end, and then the stages with their durations.

A test's stage follows from its folder: ``tests/process``, ``tests/newer`` (unit and process tests once more, in
Debian testing), ``tests/systemd``, ``tests/bench`` and ``tests/soaking`` (nightly); all others are unit tests.
Two marks except single tests from that: ``process`` (the test of a module starts a process of preforkd) and
``simulation`` (it computes for long).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TREE = Path(__file__).resolve().parent.parent
LINT = "tests/test_tools.py"
_OWN_FOLDERS = (
    "tests/process",
    "tests/newer",
    "tests/systemd",
    "tests/bench",
    "tests/soaking",
)
PARALLEL = f"--numprocesses={min(8, 1 + (os.cpu_count() or 1))}"
"""The tests wait about as much as they compute; with more, those with short timeouts would be too slow."""


@dataclass(frozen=True)
class Stage:
    """A selection of tests, and how long it may take at most."""

    name: str
    arguments: tuple[str, ...]
    minutes: float
    environment: tuple[tuple[str, str], ...] = ()


STAGES = (
    Stage("lint", (LINT, "--numprocesses=2"), 30),
    Stage(
        "unit",
        (
            *("tests", "-m", "not process and not simulation", PARALLEL, "--dist=worksteal"),
            *(f"--ignore={path}" for path in (LINT, *_OWN_FOLDERS)),
        ),
        20,
    ),
    Stage("simulation", ("tests/core", "-m", "simulation", "--numprocesses=auto"), 30),
    Stage(
        "process",
        ("tests/process", "tests/supervisor", "tests/zygote", "-m", "process", PARALLEL),
        40,
    ),
    Stage("newer", ("tests/newer", "-s"), 25),
    Stage("systemd", ("tests/systemd",), 60),
    Stage(
        "nightly",
        (
            *("tests/soaking", "tests/bench", "tests/process/test_faults_gossip.py"),
            "tests/process/test_faults_signals.py",
        ),
        60,
        (("PREFORKD_NIGHTLY", "1"),),
    ),
)
DEFAULT = ("lint", "unit", "simulation", "process")
ALL = (*DEFAULT, "newer", "systemd")


@dataclass(frozen=True)
class Result:
    """What became of a stage; ``failures`` are lines of pytest's short summary."""

    stage: Stage
    failed: bool
    counts: str
    seconds: float
    failures: tuple[str, ...]

    def __str__(self) -> str:
        """Return the stage's line."""
        verdict = "FAILED" if self.failed else "passed"
        return f"{self.stage.name:<10}  {verdict}  {self.seconds:6.0f} s  {self.counts}"


def summary(output: str) -> tuple[str, tuple[str, ...]]:
    """Return the counts and the failures that pytest's output ends with."""
    _, _, end = output.rpartition(" short test summary info ")
    failures = [line for line in end.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    found = re.findall(r"^(?:=+ )?(\d+ .*) in [\d.]+s", output, re.MULTILINE)
    if not found:
        return "pytest gave no summary", tuple(output.splitlines()[-15:])
    return found[-1], tuple(failures)


def run(stage: Stage) -> Result:
    """Run pytest for a stage, pass its output through, and return what became of it."""
    print(f"===== {stage.name}", flush=True)
    began = time.monotonic()
    environment = {**os.environ, **dict(stage.environment)}
    # Or each of the many processes compiles all that it imports, pytest's at twice the cost.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    pytest = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--quiet", *stage.arguments],
        cwd=TREE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    pieces: list[bytes] = []
    reader = threading.Thread(target=_pass_through, args=(pytest.stdout, pieces), daemon=True)
    reader.start()
    try:
        status = pytest.wait(stage.minutes * 60)
    except subprocess.TimeoutExpired:
        status = _interrupt(pytest)
        pieces.append(f"\nFAILED {stage.name}: not done within {stage.minutes} min".encode())
    reader.join(5)  # not for ever: a process that a test left behind may hold the pipe
    counts, failures = summary(b"".join(pieces).decode(errors="replace"))
    result = Result(stage, status != 0, counts, time.monotonic() - began, failures)
    print(f"===== {result}\n", flush=True)
    return result


def _pass_through(pipe: IO[bytes], pieces: list[bytes]) -> None:
    """Write to standard output what comes from a pipe, and keep it."""
    with pipe:
        while piece := os.read(pipe.fileno(), 65536):
            pieces.append(piece)
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()


def _interrupt(pytest: subprocess.Popen[bytes]) -> int:
    """Make pytest end, with a report if it can; return its exit status, which is a failure's."""
    pytest.send_signal(signal.SIGINT)
    try:
        pytest.wait(60)
    except subprocess.TimeoutExpired:
        pytest.kill()
    return pytest.wait() or 1


def report(results: list[Result]) -> None:
    """Print the failures of all stages, and then a line for each stage."""
    for result in results:
        if result.failed:
            print(f"===== {result.stage.name} failed")
            print("\n".join(result.failures) or "pytest names no test", end="\n\n")
    print("===== stages")
    for result in results:
        print(result)
    print(f"{'all':<10}          {sum(result.seconds for result in results):6.0f} s", flush=True)


def main() -> int:
    """Run the stages that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stages")
    parser.add_argument("--all", action="store_true", help=" ".join(ALL))
    names = [stage.name for stage in STAGES]
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=" ".join(names))
    options = parser.parse_args()
    if unknown := [name for name in options.stages if name not in names]:
        parser.error(f"no stage {unknown[0]!r}: {', '.join(names)}")
    wanted = options.stages or (ALL if options.all else DEFAULT)
    results = [run(stage) for stage in STAGES if stage.name in wanted]
    report(results)
    if rest := [name for name in names if name not in wanted]:
        print(f"not run: {', '.join(rest)} (sh packaging/bootstrap test --stage NAME)")
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
