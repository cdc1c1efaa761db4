"""Signals in numbers and at random: no request is lost, and what is in force at the end is right."""

import contextlib
import os
import random
import signal
import time

import pytest
from faults import serve, whole_again
from load import Load
from service import children_of

pytestmark = pytest.mark.process

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
