"""The faults of the soak: a plan from a seed, and who carries it out and writes down what he did."""

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.process.service import Service, children_of
from tests.soaking.clients import Clients
from tests.soaking.held import held_ports

WEIGHTS = {
    "reload": 6,
    "hang up": 4,
    "broken import": 2,
    "broken file": 2,
    "kill a worker": 6,
    "kill all workers": 1,
    "stop a worker": 1,
    "pause a worker": 2,
    "terminate a worker": 4,
    "kill the zygote": 3,
    "request that crashes": 3,
    "request that exits": 2,
    "request that raises": 3,
    "request that hangs": 1,
    "scale": 4,
    "scale auto": 2,
    "one more": 2,
    "one less": 2,
    "elastic pool": 2,
    "fixed pool": 2,
    "refork": 3,
    "broken refork": 2,
    "status signal": 1,
    "idle control clients": 1,
}
REQUEST_PATIENCE = 6.0
"""Seconds that a request may take; those that hang are ended by it, and no other on a machine that is slow."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: when (seconds since the start), what, and a number from 0 to 1 for its particulars."""

    at: float
    what: str
    number: float


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that a fault has ended, when, and the ports of the clients whose connections it had."""

    pid: int
    how: str
    when: float
    """In monotonic seconds."""
    ports: frozenset[int]
    own: bool = False
    """The application has ended its own process."""


def plan(seed: int, seconds: float) -> list[Step]:
    """Return what happens in so many seconds; the same for the same seed."""
    dice = random.Random(seed)
    steps, at = [], 0.0
    while (at := at + dice.choice([0.05, 0.5, 1.0, 2.0]) * dice.uniform(0.5, 1.5)) < seconds:
        (what,) = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        steps.append(Step(at, what, dice.random()))
    return steps


@dataclass
class Faults:
    """Carries out steps against a service; what has happened is there to be read when it is over."""

    service: Service
    clients: Clients
    site_log: Path
    settle: Callable[..., None]
    """Writes the configuration: what the application is told to break by, and the size of the pool."""
    workers: int
    deaths: list[Death] = field(default_factory=list)
    zygotes: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    asked_to_leave: set[int] = field(default_factory=set)
    raised: list[int] = field(default_factory=list)
    reloads: list[tuple[str, int, str]] = field(default_factory=list)
    """What kind, with which exit status, and what was said."""
    reforks: list[tuple[str, int, str]] = field(default_factory=list)
    """As `reloads`."""
    elastic: bool = False
    done: dict[str, int] = field(default_factory=dict)
    _watchers: list[threading.Thread] = field(default_factory=list)

    def run(self, steps: list[Step]) -> None:
        """Carry out the plan, each step at its time, or as soon as the one before it is done."""
        begun = time.monotonic()
        for step in steps:
            time.sleep(max(0.0, begun + step.at - time.monotonic()))
            self.done[step.what] = self.done.get(step.what, 0) + 1
            with contextlib.suppress(ProcessLookupError):
                getattr(self, "_" + step.what.replace(" ", "_"))(step.number)
        for watcher in self._watchers:
            watcher.join()

    # --- processes -------------------------------------------------------------------------------

    def _worker(self, number: float) -> int:
        alive = {death.pid for death in self.deaths} | self.paused
        workers = [pid for pid in self.service.workers() if pid not in alive]
        if not workers:
            raise ProcessLookupError
        return workers[int(number * len(workers))]

    def _end(self, pid: int, how: str) -> None:
        # Stopped first, so that what it holds does not change between the look and the end.
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            self.paused.add(pid)
            wait_until_stopped(pid)
            ports = frozenset(held_ports(pid))
            self.deaths.append(Death(pid, how, time.monotonic(), ports))
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)

    def _kill_a_worker(self, number: float) -> None:
        self._end(self._worker(number), "killed")

    def _kill_all_workers(self, _number: float) -> None:
        for pid in self.service.workers():
            with contextlib.suppress(ProcessLookupError):
                self._end(pid, "killed")

    def _stop_a_worker(self, number: float) -> None:
        pid = self._worker(number)
        self.paused.add(pid)
        os.kill(pid, signal.SIGSTOP)
        self._watch(pid, "stopped")

    def _pause_a_worker(self, number: float) -> None:
        pid = self._worker(number)
        self.paused.add(pid)
        descriptor = os.pidfd_open(pid)
        signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
        time.sleep(0.2 + number)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        os.close(descriptor)
        self.paused.discard(pid)
        self.asked_to_leave.add(-pid)

    def _watch(self, pid: int, how: str) -> None:
        """Write down what a process holds until somebody ends it."""

        def watch() -> None:
            ports: set[int] = set()
            while Path(f"/proc/{pid}/exe").exists():
                ports.update(held_ports(pid))
                time.sleep(0.01)
            self.deaths.append(Death(pid, how, time.monotonic(), frozenset(ports)))

        self._watchers.append(threading.Thread(target=watch))
        self._watchers[-1].start()

    def _terminate_a_worker(self, number: float) -> None:
        pid = self._worker(number)
        self.asked_to_leave.add(pid)
        os.kill(pid, signal.SIGTERM)

    def _kill_the_zygote(self, _number: float) -> None:
        pid = self.service.zygote()
        if pid:
            self.zygotes.add(pid)
            os.kill(pid, signal.SIGKILL)

    # --- requests --------------------------------------------------------------------------------

    def _request_that_crashes(self, _number: float) -> None:
        self.clients.fault("crash")

    def _request_that_exits(self, _number: float) -> None:
        self.clients.fault("exit")

    def _request_that_raises(self, _number: float) -> None:
        self.raised.append(self.clients.fault("raise").number)

    def _request_that_hangs(self, _number: float) -> None:
        before = self.hanging()
        asking = threading.Thread(target=self.clients.fault, args=("hang",))
        asking.start()
        self._watchers.append(asking)
        deadline = time.monotonic() + 20
        while not (new := self.hanging() - before) and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in new:
            self._watch(pid, "hung")

    def hanging(self) -> set[int]:
        """Return the workers that the application has made hang."""
        words = [line.split() for line in self.site_log.read_text().splitlines()]
        return {int(word[1]) for word in words if word[:1] == ["HANGS"]}

    # --- the service -----------------------------------------------------------------------------

    def _reload(self, _number: float) -> None:
        self._ask("whole", "--fresh")

    def _ask(self, kind: str, *how: str) -> None:
        answer = self.service.control("reload", *how)
        self.reloads.append((kind, answer.returncode, (answer.stdout + answer.stderr).strip()))

    def _hang_up(self, _number: float) -> None:
        os.kill(self.service.pid, signal.SIGHUP)

    def _broken_import(self, _number: float) -> None:
        self.settle(broken="import", elastic=self.elastic)
        self._ask("broken import", "--fresh")
        self.settle(elastic=self.elastic)

    def _broken_file(self, _number: float) -> None:
        fresh = self.service.config.with_suffix(".new")
        fresh.write_text("workers: [many\n")
        fresh.replace(self.service.config)
        self._ask("broken file", "--fresh")
        self.settle(elastic=self.elastic)

    def _elastic_pool(self, _number: float) -> None:
        self.elastic = True
        self.settle(elastic=True)
        self._ask("whole")

    def _fixed_pool(self, _number: float) -> None:
        self.elastic = False
        self.settle()
        self._ask("whole")

    def _refork(self, _number: float) -> None:
        self._ask_refork("whole")

    def _broken_refork(self, number: float) -> None:
        flag = self.service.folder / "refork"
        flag.write_text("worker" if number < 0.5 else "zygote")
        self._ask_refork("broken")
        flag.unlink()

    def _ask_refork(self, kind: str) -> None:
        answer = self.service.control("refork")
        self.reforks.append((kind, answer.returncode, (answer.stdout + answer.stderr).strip()))

    def _scale_auto(self, _number: float) -> None:
        self.service.control("scale", "auto")

    def _scale(self, number: float) -> None:
        self.service.control("scale", str(2 + int(number * 7)))

    def _one_more(self, _number: float) -> None:
        os.kill(self.service.pid, signal.SIGTTIN)

    def _one_less(self, _number: float) -> None:
        if self.service.status()["target"] > 2:
            os.kill(self.service.pid, signal.SIGTTOU)

    def _status_signal(self, _number: float) -> None:
        os.kill(self.service.pid, signal.SIGUSR1)

    def _idle_control_clients(self, number: float) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(str(self.service.folder / "io.preforkd.Manager"))
                with contextlib.suppress(OSError):
                    sock.sendall(b'{"method":')
            time.sleep(number)


def wait_until_stopped(pid: int) -> None:
    """Return when no thread of a process runs any more; the signal takes its time to reach all of them."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        states = set()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                states.add((task / "stat").read_text().rpartition(") ")[2][0])
        if states <= set("TtZX"):
            return
        time.sleep(0.001)
    raise TimeoutError(f"process {pid} was not stopped: {states}")


def open_files(pid: int) -> list[str]:
    """Return what the descriptors of a process are, in the order of their numbers."""
    places = []
    for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        with contextlib.suppress(FileNotFoundError):
            places.append(f"{name} {os.readlink(f'/proc/{pid}/fd/{name}')}")
    return places


def footprint(service: Service) -> dict[str, int]:
    """Return what the master has: descriptors, memory of its own, mapped slots, children."""
    pid = service.pid
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    return {
        "descriptors": len(open_files(pid)),
        "slots mapped": Path(f"/proc/{pid}/maps").read_text().count("memfd:preforkd-slot"),
        "children": len(children_of(pid)),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "/dev/shm": len(os.listdir("/dev/shm")),
        "memory (KiB)": private,
    }
