"""Signals in numbers and at random: no request is lost, and what is in force at the end is right."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.process.faults import serve, whole_again
from tests.process.load import Load
from tests.process.service import HERE, children_of, free_port, wait_until_gone

NIGHTLY = bool(os.environ.get("PREFORKD_NIGHTLY"))


def test_a_thousand_hangups(service):
    """SIGHUP x 1,000 under load: reloads are merged, nothing is lost, one generation is left."""
    serve(service)
    with Load(service.address, rate=100) as load:
        for _ in range(1000):
            os.kill(service.pid, signal.SIGHUP)
        load.wait_for(20)
        for _ in range(20):
            os.kill(service.pid, signal.SIGHUP)
            load.wait_for(5)
        whole_again(service, 2, set())
    assert load.result.lost == 0, load.result.bad
    assert 2 <= service.status()["generation"] < 40
    assert len(service.log) < 200_000


def test_signals_at_random(service):
    """HUP, USR1, TTIN and TTOU to the master, TERM to workers, HUP to any child, for some seconds."""
    serve(service, workers=3)
    dice = random.Random(5)
    seconds = 300 if NIGHTLY else 6
    counts = {}
    with Load(service.address, rate=100) as load:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            kind = dice.choice(
                ["HUP", "USR1", "TTIN", "TTOU", "CHLD", "TERM a worker", "HUP to a child"]
            )
            counts[kind] = counts.get(kind, 0) + 1
            children = children_of(service.pid)
            with contextlib.suppress(ProcessLookupError):
                if kind == "TERM a worker":
                    os.kill(dice.choice(service.workers() or [service.zygote()]), signal.SIGTERM)
                elif kind == "HUP to a child" and children:
                    os.kill(dice.choice(children), dice.choice([signal.SIGHUP, signal.SIGUSR1]))
                else:
                    os.kill(service.pid, getattr(signal, "SIG" + kind.split()[0]))
            time.sleep(dice.uniform(0, 0.2))
        load.wait_for(20)
        assert service.control("scale", "3").returncode == 0
        whole_again(service, 3, set())
        load.wait_for(20)
    assert load.result.lost == 0, (load.result.bad, counts)
    assert service.stop() == 0
    assert "did not leave" not in service.log
    assert "not ready within" not in service.log
    assert "Traceback" not in service.log, service.log


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_all_processes(service, number):
    """HUP and USR1 to the whole group, as systemctl kill sends them, again and again: reloads succeed."""
    serve(service, start_new_session=True)
    reload = [sys.executable, "-m", "preforkd.cli.preforkctl", "reload", "--fresh"]
    variables = {**os.environ, "RUNTIME_DIRECTORY": str(service.folder)}
    with Load(service.address, rate=50) as load:
        for _ in range(3):
            asked = subprocess.Popen(reload, env=variables, stdout=subprocess.DEVNULL)
            while asked.poll() is None:
                os.killpg(service.pid, number)
                time.sleep(0.01)
            assert asked.returncode == 0, service.log
        service.until(lambda status: status["state"] == "serving")
        whole_again(service, 2, set())
    assert load.result.lost == 0, load.result.bad
    assert service.status()["last_reload"]["ok"]
    assert "warning: " not in service.log, service.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_that_is_sent_to_all_processes(service, number):
    """TERM, INT and QUIT to the whole group: a stop without a warning, however many of them come."""
    serve(service, start_new_session=True)
    processes = children_of(service.pid)
    for _ in range(3):
        os.killpg(service.pid, number)
    assert service.wait() == 0
    wait_until_gone(processes)
    assert "warning: " not in service.log, service.log


LOADS = """\
import pathlib, time
pathlib.Path({path!r}).touch()
time.sleep({seconds})
def application(environ, start_response):
    start_response("200 OK", [])
    return []
"""


def start_slowly(service, seconds, **how):
    """Start a service whose application takes a while to load; return the file that it makes then."""
    mark = service.folder / "loading"
    (service.folder / "slowly.py").write_text(LOADS.format(path=str(mark), seconds=seconds))
    service.configure(
        f"app: {{target: 'wsgi:slowly:application', directory: {service.folder}}}\n"
        f"listen: 127.0.0.1:{free_port()}\nworkers: 2\n"
    )
    service.start("--config", str(service.config), ready=False, **how)
    return mark


def wait_until(holds, meanwhile=lambda: None):
    """Return when this holds, and do something until then."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        meanwhile()
        time.sleep(0.01)


def test_a_stop_that_is_sent_to_all_while_the_application_loads(service):
    """TERM to the whole group: the service ends with 0, and does not say that it cannot start."""
    wait_until(start_slowly(service, 60, start_new_session=True).exists)
    processes = children_of(service.pid)
    os.killpg(service.pid, signal.SIGTERM)
    assert service.wait() == 0
    wait_until_gone(processes)
    assert "warning: " not in service.log
    assert "cannot start" not in service.log


def test_a_hangup_that_comes_before_the_service_serves(service):
    """HUP to the whole group while the file is read and the zygote comes: it starts, then it reloads."""
    mark = start_slowly(service, 0.5, start_new_session=True)
    wait_until(lambda: children_of(service.pid))
    wait_until(mark.exists, lambda: os.killpg(service.pid, signal.SIGHUP))
    service.manager.wait_for("READY", "1")
    service.manager.wait_for("RELOADING", "1")
    service.manager.wait_for("READY", "1")
    assert service.status()["last_reload"]["ok"]
    assert "warning: " not in service.log, service.log


def test_a_zygote_that_loads_ends_with_its_master(service):
    """SIGKILL of the master: nobody waits for an application that takes a minute to load."""
    wait_until(start_slowly(service, 60).exists)
    processes = children_of(service.pid)
    service.process.kill()
    service.wait()
    wait_until_gone(processes, 10)


BLOCKED = """\
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_what_was_blocked_by_who_started_it(service):
    """All signals blocked, HUP and CHLD ignored: it reloads, replaces a worker, and stops as ever."""
    command = (sys.executable, "-c", BLOCKED)
    serve(service, command=command, target="wsgi:echo:application", directory=str(HERE))
    os.kill(service.pid, signal.SIGHUP)
    service.until(lambda status: status["generation"] == 2 and status["state"] == "serving")
    victim = service.workers()[0]
    os.kill(victim, signal.SIGKILL)
    whole_again(service, 2, {victim})
    assert service.stop() == 0
