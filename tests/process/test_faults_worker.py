"""Faults of a worker in the middle of a request: they cost that request, and nothing else."""

import contextlib
import os
import random
import signal
import socket
import threading
import time

import pytest

from tests.process.faults import get, serve, whole_again
from tests.process.load import Load

# What the application does, what its client gets, what the log says of the worker.
DEATHS = {
    "kill": (None, "exited: killed by SIGKILL"),
    "segv": (None, "exited: killed by SIGSEGV"),
    "abort": (None, "exited: killed by SIGABRT"),
    "_exit": (None, "exited: exit status 5"),
    "_exit0": (None, "exited: exit status 0"),
    "exit": (500, "is draining without an order of the master"),
    "close-all": (
        None,
        "the application, or one of its libraries, closed a descriptor of preforkd",
    ),
}


@pytest.mark.logs("closed a descriptor of preforkd")
@pytest.mark.parametrize("how", DEATHS)
def test_a_worker_that_dies_in_a_request(service, how):
    """Its client learns of it, no other request is lost, the log says how, another takes its place."""
    status, words = DEATHS[how]
    serve(service)
    before = set(service.workers())
    with Load(service.address, keep_alive=0, fresh=4, rate=100) as load:
        load.wait_for(5)
        assert get(service.address, f"/fault?{how}")[0] == status
        load.wait_for(20)
    assert load.result.lost == 0, load.result.bad
    after = service.until(
        lambda status: status["ready"] == 2 and {row["pid"] for row in status["workers"]} != before
    )
    assert after["generation"] == 1
    assert len({row["pid"] for row in after["workers"]} - before) == 1
    assert words in service.log


@pytest.mark.parametrize("how", ["raise", "recurse"])
def test_an_exception_costs_its_own_request_only(service, how):
    """500 for the client, the traceback with the request line in the log, and the worker serves on."""
    serve(service)
    before = set(service.workers())
    for _ in range(4):
        assert get(service.address, f"/fault?{how}")[0] == 500
    assert get(service.address, "/?id=1")[0] == 200
    assert set(service.workers()) == before
    assert f"the application failed on GET /fault?{how}" in service.log
    assert "faulty.py" in service.log


def test_a_recursion_that_overflows_the_stack(service):
    """A stack that overflows kills the worker (an interpreter that notices makes it a 500), no more."""
    serve(service)
    before = set(service.workers())
    status, _ = get(service.address, "/fault?overflow")
    if status is None:
        service.until(
            lambda status: (
                status["ready"] == 2 and {row["pid"] for row in status["workers"]} != before
            )
        )
        assert "exited: killed by SIGSEGV" in service.log
    else:
        assert status == 500
        assert "RecursionError" in service.log
    assert get(service.address, "/?id=1")[0] == 200


def test_a_worker_that_is_stopped_in_a_request(service):
    """SIGSTOP: said at once; others serve, it is killed after ten seconds, and costs its own request."""
    serve(service)
    answers = []
    client = threading.Thread(target=lambda: answers.append(get(service.address, "/slow?for=600")))
    client.start()
    status = service.until(lambda status: status["busy"] == 1)
    (pid,) = (row["pid"] for row in status["workers"] if row["busy_seconds"] is not None)
    os.kill(pid, signal.SIGSTOP)
    service.until(lambda _: "was stopped by a signal (SIGSTOP?); it will be killed" in service.log)
    with Load(service.address, keep_alive=0, fresh=2, rate=100) as load:
        whole_again(service, 2, {pid})
    client.join()
    assert answers == [(None, b"")]
    assert load.result.lost == 0, load.result.bad
    assert "was stopped by a signal for 10 s" in service.log


def test_all_workers_die_at_once(service):
    """SIGKILL of every worker: requests wait in the kernel's queue meanwhile, and are answered."""
    serve(service)
    before = set(service.workers())
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert get(service.address, "/?id=1")[0] == 200
    whole_again(service, 2, before)


def test_workers_that_die_again_and_again(service):
    """Each request kills a worker: the master does not spin, says so, and serves what comes after."""
    serve(service)
    for _ in range(8):
        assert get(service.address, "/fault?kill")[0] is None
    assert "start failure" in service.log
    assert get(service.address, "/?id=1")[0] == 200
    service.until(lambda status: status["ready"] == 2)


def test_no_connection_waits_for_a_worker_that_was_killed_when_it_was_woken(service):
    """Idle workers are killed as a connection comes: another one answers it, within a second."""
    serve(service, workers=8)
    dice = random.Random(3)
    taken = []
    for _ in range(4):
        status = service.until(lambda status: status["ready"] == 8, timeout=60)
        pids = [row["pid"] for row in status["workers"]]
        for pid in dice.sample(pids, 6):
            begun = time.monotonic()
            with socket.create_connection(service.address, timeout=20) as sock:
                os.kill(pid, signal.SIGKILL)
                # One that had accepted it takes it along.
                with contextlib.suppress(ConnectionError):
                    sock.sendall(b"GET /?id=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    sock.recv(1)
            taken.append(time.monotonic() - begun)
    assert max(taken) < 1, sorted(taken)
