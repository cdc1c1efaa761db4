"""The pool with real processes: its size, the limits of its workers, requests that take too long."""

import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.process.load import Load
from tests.process.service import ask

APP = """
import os, time

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    how, _, value = environ["QUERY_STRING"].partition("&")[0].partition("=")
    if how == "sleep":
        time.sleep(float(value))
    elif how == "lock":
        sum(range(10**12))  # in C, with the interpreter's lock, and without a look at signals
    elif how == "spin":
        while True:
            pass
    elif how == "leak":
        app.leaked.extend(open("/dev/null") for _ in range(int(value)))
    elif how == "grow":
        app.leaked.append(os.urandom(int(value) << 20))
    return [f"{environ['QUERY_STRING']} pid {os.getpid()}".encode()]

app.leaked = []
"""


@pytest.fixture
def started(service):
    """A service with the application and these settings; returns its address."""
    return lambda settings: service.serve("pooled", APP, settings, "wsgi:pooled:app")


def ask_in_background(address, path, count=1):
    """Ask so many at a time; the threads return when they have an answer or none comes."""
    answers = []

    def client():
        try:
            answers.append(ask(address, path))
        except OSError as error:
            answers.append(error)

    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def test_a_burst_makes_an_elastic_pool_grow(service, started):
    """64 clients at once, two workers: all are answered, and by more than two."""
    address = started("workers: {min: 2, max: 16, spare: 1}")
    threads, answers = ask_in_background(address, "/?sleep=0.2", 64)
    service.until(lambda status: status["target"] == 16)
    for thread in threads:
        thread.join()
    pids = {answer.rpartition(b"pid ")[2] for answer in answers}
    assert len(answers) == 64
    assert 2 < len(pids) <= 16
    assert "the pool grows from" in service.log


def test_steady_load_moves_nothing(service, started):
    """A pool that is large enough neither grows nor shrinks under load."""
    address = started("workers: {min: 3, max: 16}")
    with Load(address, rate=100.0, keep_alive=2, fresh=0) as load:
        load.wait_for(200)
    assert load.result.lost == load.result.counts["wrong"]
    assert "the pool" not in service.log


def test_the_size_by_hand(service, started):
    """scale N, +N, -N, auto, SIGTTIN and SIGTTOU; status says so; a reload of workers ends it."""
    started("workers: 2")
    assert service.control("scale", "4").stdout == "4 workers\n"
    assert service.until(lambda status: status["ready"] == 4)["by_hand"]
    service.process.send_signal(signal.SIGTTIN)
    service.until(lambda status: status["ready"] == 5)
    service.process.send_signal(signal.SIGTTOU)
    service.until(lambda status: status["target"] == 4)
    assert service.control("scale", "-3").stdout == "1 workers\n"
    assert service.control("scale", "-3").stdout == "1 workers\n"
    service.until(lambda status: len(status["workers"]) == 1)
    assert service.control("scale", "auto").stdout == "2 workers\n"
    service.until(lambda status: status["ready"] == 2 and not status["by_hand"])
    service.control("scale", "3")
    service.configure(service.config.read_text().replace("workers: 2", "workers: 4"))
    assert service.control("reload").returncode == 0
    service.until(lambda status: status["ready"] == 4 and not status["by_hand"])


@pytest.mark.parametrize("how", ["sleep=60", "lock", "spin"])
def test_a_request_that_takes_too_long_costs_only_its_worker(service, started, how):
    """Waiting, in C with the GIL held, or at 100 % CPU: its stacks and its line are logged, it is killed."""
    address = started("workers: 2\ntimeouts: {request: 1s}")
    # Where Python can still run, the client is told: in the moment before the kill, if there is a CPU for it.
    told = how != "lock"
    for _ in range(5 if told else 1):
        before = service.workers()
        threads, answers = ask_in_background(address, f"/?{how}")
        threads[0].join()
        answer = b"".join(a for a in answers if isinstance(a, bytes))
        assert b" 200 " not in answer
        service.until(
            lambda status: (
                status["ready"] == len(status["workers"]) == 2
                and len(set(before) & {row["pid"] for row in status["workers"]}) == 1  # noqa: B023
            )
        )
        if b" 504 " in answer:
            break
    assert (b" 504 " in answer) == told, answer
    log = service.log
    assert f"GET /?{how} HTTP/1.1 took longer than 1 s" in log
    assert "in app" in log.partition("took longer than 1 s")[2]
    assert "pooled.py" in log
    assert b" 200 " in ask(address)


def test_a_slow_request_is_told_and_answered(service, started):
    """timeouts.slow: stacks in the log, once, and the client gets his answer."""
    address = started("workers: 2\ntimeouts: {slow: 300ms}")
    assert b" 200 " in ask(address, "/?sleep=1.5")
    assert service.log.count("is slow: GET /?sleep=1.5 HTTP/1.1") == 1
    assert "pooled.py" in service.log


def test_workers_are_replaced_after_their_requests_and_nothing_is_lost(service, started):
    """Each is followed before it leaves: under load no request fails, and there are never fewer."""
    address = started("workers: 2\nlimits: {requests: 40}")
    first = set(service.workers())
    (service.folder / "echo.py").write_text("")
    with Load(address, rate=300.0) as load:
        load.wait_for(600)
    assert load.result.lost == 0, load.result
    assert not first & set(service.workers())
    assert "will be replaced: it has answered" in service.log
    assert "only 1 of 2" not in service.log


def test_workers_are_replaced_at_their_age_one_after_the_other(service, started):
    """Without any request: the deadline alone wakes the master."""
    started("workers: 2\nlimits: {age: 1s}")
    first = set(service.workers())
    service.until(lambda status: not first & {row["pid"] for row in status["workers"]})
    assert "it has served for 1 s" in service.log


def test_a_worker_that_leaks_descriptors_is_replaced(service, started):
    """The audit finds it, with the number in the log."""
    address = started("workers: 1\nlimits: {descriptors: 100}")
    (first,) = service.workers()
    ask(address, "/?leak=200")
    deadline = time.monotonic() + 40
    while service.workers() == [first]:
        assert time.monotonic() < deadline, service.log
        ask(address)
    assert "file descriptors open" in service.log


def test_a_stopped_worker_is_noticed_and_replaced(service, started):
    """SIGSTOP: said at once, connections go to the others, killed after ten seconds; SIGCONT ends it."""
    address = started("workers: 2")
    one, other = service.workers()
    for pid in (one, other):
        pidfd_signal(pid, signal.SIGSTOP)
        service.until(lambda status: any("stopped" in line for line in status["problems"]))
        assert b" 200 " in ask(address)
        pidfd_signal(pid, signal.SIGCONT)
        service.until(lambda status: not status["problems"])
    pidfd_signal(one, signal.SIGSTOP)
    service.until(lambda status: one not in {row["pid"] for row in status["workers"]})
    assert "was stopped by a signal for 10 s" in service.log
    assert other in service.workers()


def pidfd_signal(pid: int, number: int) -> None:
    import os

    descriptor = os.pidfd_open(pid)
    signal.pidfd_send_signal(descriptor, number)
    os.close(descriptor)


def test_a_full_queue_is_told_of(service, started):
    """All workers busy and connections waiting: in the status, and in the log when it began and ended."""
    address = started("workers: 1")
    threads, _ = ask_in_background(address, "/?sleep=1", 6)
    service.until(lambda status: any("connections wait" in line for line in status["problems"]))
    for thread in threads:
        thread.join()
    service.until(lambda status: not status["problems"])
    assert "no connection is waiting any more" in service.log


def test_workers_are_preferred_victims(service, started):
    """The kernel takes a worker before the master and the zygote."""
    started("workers: 1")

    def score(pid):
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    (worker,) = service.workers()
    assert score(worker) > score(service.zygote())
    assert score(service.zygote()) == score(service.pid)


def test_a_socket_is_given_up_by_nobody(service, started):
    """A stopped pool loses no connection: they wait in the kernel's queue."""
    address = started("workers: 1")
    (worker,) = service.workers()
    pidfd_signal(worker, signal.SIGSTOP)
    with socket.create_connection(address, 20) as sock:
        sock.sendall(b"GET /?id=7 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert b"id=7" in sock.recv(4096)  # by the one that replaces it


def test_a_worker_that_has_grown_is_replaced(service, started):
    """memory.limit is about what it has to itself: the growth and the heaviest are in the log."""
    address = started("workers: 2\nmemory: {limit: 60M}")
    first = set(service.workers())
    pid = int(ask(address, "/?grow=80").rpartition(b"pid ")[2])
    deadline = time.monotonic() + 40
    while pid in service.workers():
        assert time.monotonic() < deadline, service.log
        ask(address)
    assert len(first & set(service.workers())) == 1
    line = service.log.partition("will be replaced: ")[2]
    assert "MB of private memory" in line
    assert "more than after its fork (most: worker" in line
