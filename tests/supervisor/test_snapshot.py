"""The service as the control socket shows it."""

import os
from types import SimpleNamespace

import pytest

from preforkd.control.records import ListenerStatus
from preforkd.core import events as ev
from preforkd.core.lifecycle import State
from preforkd.core.model import Limits
from preforkd.core.scoreboard import Scoreboard
from preforkd.ipc.slots import SlotState
from preforkd.linux.memory import Usage
from preforkd.supervisor import snapshot
from preforkd.supervisor.listeners import Served

LIMITS = Limits(floor=2, target=2, maximum=8, surge=8)
NOW = 100.0


@pytest.fixture
def board():
    """Generation 1 with workers 1 (seat 2) and 2 (seat 1), and a zygote."""
    board = Scoreboard()
    facts = (
        ev.GenerationRequested(1),
        ev.SpawnZygote(1, 1),
        ev.ZygoteSpawned(1, 50),
        ev.ZygoteLoaded(1),
        ev.ForkWorker(1, 2, 1, 1),
        ev.ForkWorker(2, 1, 1, 1),
        ev.WorkerForked(1, 51),
        ev.WorkerReady(1),
        ev.Promote(1),
        ev.ServeWorker(1),
        ev.Resize(3, 2, "for the test"),
    )
    for fact in facts:
        board.apply(fact, NOW - 10)
    return board


class Pool:
    """Worker 1 is busy; worker 2 is not known yet."""

    def worker(self, worker):
        reading = SlotState(busy_since=NOW - 2, requests=7, accepted=5, connections=3)
        slot = SimpleNamespace(read=lambda _now: reading, request_line=lambda: "GET / HTTP/1.1")
        return SimpleNamespace(slot_memory=slot) if worker == 1 else None


def shown(board, pool=None, **more):
    service = snapshot.SnapshotSource(
        **{
            "version": "1",
            "pid": 40,
            "state": State.SERVING,
            "status": lambda busy: f"{busy} busy",
            "uptime": 10.0,
            "configuration": None,
            "last_reload": None,
            "served": (Served("http", None, "stored", "[::]:80"),),
            "notes": [],
            "by_hand": False,
            **more,
        }
    )
    return snapshot.service_status(service, board, LIMITS, pool or Pool(), NOW)


def test_workers_are_shown_by_their_slots(board):
    """With the contents of their slots, if there are any; times are ages."""
    seen = shown(board)
    first, second = seen.workers
    assert (first.slot, first.pid, first.state, first.busy_seconds) == (1, None, "forking", None)
    assert (second.slot, second.pid, second.serving) == (2, 51, True)
    assert (second.busy_seconds, second.busy_with) == (2.0, "GET / HTTP/1.1")
    assert (second.requests, second.accepted, second.connections) == (7, 5, 3)
    assert second.age_seconds == 10.0
    assert seen.listeners == [ListenerStatus("http", "[::]:80", "stored")]
    assert (seen.ready, seen.busy, seen.target, seen.least, seen.most) == (1, 1, 3, 2, 8)


def test_a_generation_is_shown_with_its_latest_zygote(board):
    """One that is forked from a worker stands behind the one that it will follow."""
    (row,) = shown(board).generations
    assert (row.generation, row.role, row.zygote_pid, row.workers) == (1, "current", 50, 2)
    board.apply(ev.ZygoteExited(1, "x"), NOW)
    (row,) = shown(board).generations
    assert (row.zygote_pid, row.zygote_state) == (None, None)


class Readings:
    """Readings as the test sets them."""

    def __init__(self, readings):
        self.readings = readings

    def read(self, pids, callback):
        callback({pid: self.readings[pid] for pid in pids})

    def growth(self, pid, usage):
        return 3 if pid == 51 else None


def usage(rss, pss, private, anonymous, pss_files=1):
    return Usage(rss, pss, private, anonymous, pss_files)


def test_the_memory_of_all_processes(board):
    """Workers, zygote, master; the sum of PSS, and what unrelated workers would take without a zygote."""
    readings = {
        51: usage(100, 40, 10, 90, 5),
        50: usage(90, 30, 5, 80, 5),
        os.getpid(): usage(30, 20, 15, 16, 4),
    }
    results = []
    snapshot.read_memory_status(board, Readings(readings), results.append)
    (seen,) = results
    worker, zygote, master = seen.processes
    assert (worker.role, worker.slot, worker.generation, worker.pid) == ("worker", 2, 1, 51)
    assert (worker.uss, worker.pss, worker.shared, worker.growth) == (10, 40, 90, 3)
    assert (zygote.role, zygote.slot, zygote.growth) == ("zygote", None, None)
    assert (master.role, master.generation) == ("master", None)
    assert seen.pss == 90
    assert seen.unrelated == 90 + 5 + 16 + 4
    assert seen.problems == []


def test_what_cannot_be_read_is_reported(board):
    """A process that has ended meanwhile is no problem; an old kernel gives no estimate."""
    readings = {
        51: PermissionError(13, "Permission denied"),
        50: ProcessLookupError(3, "No such process"),
        os.getpid(): usage(30, 20, 15, 16, None),
    }
    results = []
    snapshot.read_memory_status(board, Readings(readings), results.append)
    (seen,) = results
    assert [process.role for process in seen.processes] == ["master"]
    assert seen.problems == ["worker 51: Permission denied"]
    assert seen.unrelated is None


def test_what_was_decided_at_the_start_is_told_with_the_problems(board):
    """Behind what the board knows."""
    note = "f:1:9: listen[0]: :80 is not served"
    assert shown(board, notes=[note]).problems == [*shown(board).problems, note]


def test_the_line_and_the_table_are_of_one_moment(board):
    """The slots are read once: the line counts as busy what the table shows as busy."""

    class Restless(Pool):
        reads = 0

        def worker(self, worker):
            found = super().worker(worker)
            self.reads += found is not None
            return found if self.reads < 2 else None

    service = Restless()
    seen = shown(board, pool=service)
    assert seen.status == "1 busy"
    assert seen.busy == 1
    assert service.reads == 1
