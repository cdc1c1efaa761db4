"""An unhealthy pool explains itself, in STATUS and `preforkctl status`: what, since when, what happens next."""

import os
import re
import signal
import time

import pytest

from tests.process.test_pool import ask_in_background

APP = """
import os, time
from pathlib import Path

HERE = Path(__file__).parent
while (HERE / "slow").exists():
    time.sleep(0.05)
if (HERE / "broken").exists():
    raise RuntimeError("no database")

def app(environ, start_response):
    while environ["PATH_INFO"] == "/wait" and not (HERE / "answer").exists():
        time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

class hooks:
    @staticmethod
    def after_fork():
        if (HERE / "die").exists():
            os._exit(3)
        while (HERE / "hang").exists():
            time.sleep(0.05)
"""
WHEN = r"(\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d)"


@pytest.fixture
def started(service):
    """A service with the application and two workers, more of the configuration being given."""

    def start(more: str = "") -> tuple[str, int]:
        return service.serve("told", APP, f"hooks: told:hooks\nworkers: 2\n{more}", "wsgi:told:app")

    return start


def told(service, pattern):
    """Return when both the STATUS line and a problem of `preforkctl status` say this."""
    sentence = re.compile(pattern.replace("WHEN", WHEN))
    deadline = time.monotonic() + 30
    line = text = ""
    while time.monotonic() < deadline:
        text = service.control("status").stdout
        lines = [message["STATUS"] for message in service.manager.messages if "STATUS" in message]
        line = lines[-1] if lines else line
        problem = re.search(rf"^ +Problem: {sentence.pattern}", text, re.MULTILINE)
        if problem and sentence.search(line):
            return
        service.manager.listen(0.2)
    raise AssertionError(f"{pattern} was not told\nSTATUS: {line}\n{text}\n{service.log}")


def all_well(service):
    """Return when neither of them knows of a problem."""
    service.until(lambda status: not status["problems"] and status["ready"] == status["target"])
    assert "Problem" not in service.control("status").stdout
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = [message["STATUS"] for message in service.manager.messages if "STATUS" in message]
        if re.fullmatch(r"2 of 2 workers ready, \d busy, generation \d", lines[-1]):
            return
        service.manager.listen(0.2)
    raise AssertionError(f"STATUS: {lines[-1]}")


def test_workers_that_cannot_start(service, started):
    """Nobody serves: since when, how often it was tried, why it fails, and when it is tried again."""
    started()
    (service.folder / "die").touch()
    for pid in service.workers():
        os.kill(pid, signal.SIGKILL)
    told(service, "no worker is serving since WHEN; connections wait in the backlog")
    told(
        service,
        r"\d+ consecutive start failures, last at WHEN, next attempt at WHEN: "
        "worker . exited before it was ready: exit status 3",
    )
    (service.folder / "die").unlink()
    all_well(service)


def test_a_worker_that_hangs_at_its_start(service, started):
    """STATUS says so though nothing else happens: before it is killed, and without anybody looking."""
    started("timeouts: {boot: 12s}\n")
    (service.folder / "hang").touch()
    os.kill(service.workers()[0], signal.SIGKILL)
    said, deadline = "", time.monotonic() + 11
    while "has been starting since" not in said and time.monotonic() < deadline:
        said = (service.manager.listen(0.5) or {}).get("STATUS", said)
    assert re.search(rf"worker \d has been starting since {WHEN}; it is killed at {WHEN}", said)
    assert "did not" not in service.log
    (service.folder / "hang").unlink()
    all_well(service)


def test_a_zygote_that_was_lost(service, started):
    """The workers serve; since when another one loads, and until when it may."""
    started("timeouts: {start: 10min}")
    (service.folder / "slow").touch()
    os.kill(service.zygote(), signal.SIGKILL)
    told(
        service,
        "the zygote was lost; another has been loading the application since WHEN; "
        "no worker can be replaced until then; given up at WHEN",
    )
    os.kill(service.workers()[0], signal.SIGKILL)
    told(service, "only 1 of 2 workers serve since WHEN")
    (service.folder / "slow").unlink()
    all_well(service)


def test_a_worker_that_is_stopped(service, started):
    """Since when, and when it is killed if nobody lets it go on."""
    started()
    pid = service.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    told(
        service,
        "worker . was stopped by a signal at WHEN; it is killed at WHEN unless it is continued",
    )
    os.kill(pid, signal.SIGCONT)
    all_well(service)


def test_a_pool_that_is_too_small(service, started):
    """Since when all are busy, how many wait, and that nothing but the end of a request helps."""
    threads, answers = ask_in_background(started(), "/wait", 5)
    told(
        service,
        r"all workers have been busy since WHEN and \d connections wait; "
        r"the pool has 2 workers and does not grow \(workers\.count\)",
    )
    (service.folder / "answer").touch()
    for thread in threads:
        thread.join()
    assert all(answer.endswith(b"hello") for answer in answers)
    all_well(service)


def test_a_worker_that_does_not_leave(service, started):
    """Told to leave and busy still: since when, and when it is killed."""
    threads, answers = ask_in_background(started("timeouts: {drain: 12s}"), "/wait")
    busy = service.until(lambda status: status["busy"] == 1)
    pid = next(row["pid"] for row in busy["workers"] if row["busy_seconds"] is not None)
    os.kill(pid, signal.SIGTERM)
    service.until(
        lambda status: any("has been draining since" in line for line in status["problems"])
    )
    text = service.control("status").stdout
    sentence = rf"worker . has been draining since {WHEN} and is still busy; it is killed at {WHEN}"
    assert re.search(rf"^ +Problem: {sentence}", text, re.MULTILINE), text
    (service.folder / "answer").touch()
    for thread in threads:
        thread.join()
    assert answers[0].endswith(b"hello")
    all_well(service)


def test_a_reload_that_has_failed(service, started):
    """When, why, and that nothing was changed; a reload that succeeds takes it back."""
    started()
    (service.folder / "broken").touch()
    assert service.control("reload", "--fresh").returncode == 69
    status = service.manager.wait_for("READY", "1")["STATUS"]
    reason = "the last reload failed at WHEN, and nothing was changed: .*RuntimeError: no database"
    assert re.search(reason.replace("WHEN", WHEN), status), status
    assert re.search(
        r"Reload: [-\d]+ [:\d]+ failed: .*no database", service.control("status").stdout
    )
    (service.folder / "broken").unlink()
    assert service.control("reload", "--fresh").returncode == 0
    all_well(service)
