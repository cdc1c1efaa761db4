"""What surrounds the service fails: the journal, the manager, the clock, the standard streams."""

import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from tests.process.faults import cpu_seconds, fill, get, library, serve
from tests.process.load import Load


def with_journal(folder):
    """Return a command in front of which this folder is the journal's, and nobody else's."""
    place = "/run/systemd/journal"
    shell = f'mount -t tmpfs none /run && mkdir -p {place} && mount --bind {folder} {place} && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", shell, "sh")
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace of one's own is not to be had")
    return command


def test_a_journal_that_does_not_read(service, tmp_path):
    """Blocked: requests, reloads and the loss of workers are dealt with as fast as without a log."""
    folder = tmp_path / "journal"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(folder / "socket"))
        command = with_journal(folder)
        serve(service, more="log: {target: journal, level: debug}\n", command=command)
        # Nobody reads from here on: its queue is filled, so that nothing more can be sent.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            fill(lambda: filler.sendto(b"MESSAGE=x\n", str(folder / "socket")))
        with Load(service.address, keep_alive=2, fresh=2, rate=100) as load:
            begun = time.monotonic()
            assert service.control("reload", "--fresh").returncode == 0
            for pid in service.workers():
                os.kill(pid, signal.SIGTERM)
            get(service.address, "/fault?raise")
            service.until(lambda status: status["ready"] == 2)
            load.wait_for(50)
        # Each of the two dozen lines would have taken a second.
        assert time.monotonic() - begun < 15
    assert load.result.lost == 0, load.result.bad
    # What the journal does not take of the master's is on standard error.
    assert "generation 2 is serving" in service.log


def test_a_journal_that_is_stopped_and_comes_back(service, tmp_path):
    """Stopped: lines go to standard error meanwhile; once it is back they go to it again."""
    folder = tmp_path / "journal"
    folder.mkdir()
    command = with_journal(folder)
    place = folder / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(place))
        serve(service, more="log: {target: journal}\n", command=command)
    place.unlink()
    assert service.control("reload", "--fresh").returncode == 0
    assert "generation 2 is serving" in service.log
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(place))
        journal.settimeout(30)
        assert service.control("reload", "--fresh").returncode == 0
        while b"generation 3 is serving" not in journal.recv(65536):
            pass
    assert "generation 3 is serving" not in service.log


def test_a_standard_error_that_nobody_reads(service):
    """A pipe that is full stops neither the master nor a worker that complains."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fill(lambda: os.write(writer, b"x" * 4096))
    os.set_blocking(writer, True)
    shell = f'exec "$@" 2>/proc/{os.getpid()}/fd/{writer}'
    serve(service, command=("sh", "-c", shell, "sh"))
    with Load(service.address, keep_alive=2, fresh=2, rate=100) as load:
        assert get(service.address, "/fault?raise")[0] == 500
        assert service.control("reload", "--fresh").returncode == 0
        load.wait_for(20)
    assert load.result.lost == 0, load.result.bad
    assert service.stop() == 0
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed(service, closed):
    """Whichever are closed at the start: it serves, reloads, runs programs, and writes to nobody's file."""
    serve(service, command=("sh", "-c", f'exec "$@" {closed}', "sh"))
    for _ in range(4):
        assert get(service.address, "/fault?program")[0] == 200
    assert get(service.address, "/fault?raise")[0] == 500
    for role in (service.pid, service.zygote(), *service.workers()):
        for number in range(3):
            place = os.readlink(f"/proc/{role}/fd/{number}")
            assert place in {"/dev/null", str(service.log_path)}, (role, number, place)
    assert service.control("reload", "--fresh").returncode == 0
    assert service.stop() == 0


def test_a_manager_that_is_not_there(service, tmp_path):
    """$NOTIFY_SOCKET names nothing: said once, and the service serves, reloads and stops."""
    serve(
        service,
        notify=False,
        ready=False,
        environ={"NOTIFY_SOCKET": str(tmp_path / "nowhere"), "WATCHDOG_USEC": "200000"},
    )
    deadline = time.monotonic() + 30
    while "generation 1 is serving" not in service.log:
        assert time.monotonic() < deadline, service.log
        time.sleep(0.05)
    with Load(service.address, rate=100) as load:
        load.wait_for(200)
        assert service.control("reload", "--fresh").returncode == 0
    assert load.result.lost == 0, load.result.bad
    assert service.stop() == 0
    assert service.log.count("cannot notify the service manager of") == 1, service.log


def test_a_manager_that_does_not_read(service, tmp_path):
    """Its queue is full: each announcement is given a second at the most, the service serves on."""
    place = tmp_path / "full"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            fill(lambda: filler.sendto(b"STATUS=x", str(place)))
        serve(
            service,
            notify=False,
            ready=False,
            environ={"NOTIFY_SOCKET": str(place), "WATCHDOG_USEC": "200000"},
        )
        deadline = time.monotonic() + 30
        while "generation 1 is serving" not in service.log:
            assert time.monotonic() < deadline, service.log
            time.sleep(0.05)
        spent, begun = cpu_seconds(service.pid), time.monotonic()
        with Load(service.address, rate=100) as load:
            load.wait_for(200)
            assert service.control("reload", "--fresh").returncode == 0
        assert load.result.lost == 0, load.result.bad
        assert cpu_seconds(service.pid) - spent < (time.monotonic() - begun) / 2
        assert service.stop() == 0
    assert "cannot notify the service manager of" in service.log


@pytest.fixture
def wrong_clock(service, tmp_path):
    """A service whose processes all have a wall clock that can be set."""
    path = library(tmp_path)
    if path is None:
        pytest.skip("no C compiler")
    offset = tmp_path / "offset"
    offset.write_text("0")
    environ = {"LD_PRELOAD": path, "CLOCK_OFFSET": str(offset)}
    serve(service, environ=environ, more="http: {keep_alive: 60s}\n")
    service.set_clock = lambda seconds: offset.write_text(str(seconds))
    return service


@pytest.mark.parametrize("step", [-86400 * 400, -3600, 3600, 86400 * 400])
def test_the_wall_clock_is_set(wrong_clock, step):
    """Back or forward: no connection, request, deadline or delay is cut short, and none lasts for ever."""
    service = wrong_clock
    workers = set(service.workers())
    answers = []
    slow = threading.Thread(target=lambda: answers.append(get(service.address, "/slow?for=1")))
    with Load(service.address, keep_alive=4, fresh=2, rate=100) as load:
        load.wait_for(20)
        slow.start()
        service.until(lambda status: status["busy"] >= 1)
        service.set_clock(step)
        load.wait_for(100)
        slow.join()
        assert set(service.workers()) == workers
        victim = min(workers)
        os.kill(victim, signal.SIGTERM)
        service.until(
            lambda status: (
                status["ready"] == 2 and victim not in {row["pid"] for row in status["workers"]}
            )
        )
        assert service.control("reload", "--fresh").returncode == 0
        service.set_clock(0)
        load.wait_for(50)
    assert answers[0][0] == 200
    assert load.result.lost == 0, load.result.bad
    assert service.stop() == 0
    assert "is killed" not in service.log
    assert "not ready within" not in service.log
