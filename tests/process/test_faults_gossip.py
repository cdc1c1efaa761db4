"""What a child says of itself is gossip: it neither crashes nor misleads the master."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.process.faults import cpu_seconds, descriptors, get, serve, whole_again
from tests.process.load import Load


@pytest.fixture
def bystander():
    """A process that is nobody's business."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        assert process.poll() is None, "somebody has ended it"
        process.kill()


def memory(pid):
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("seed", range(20 if os.environ.get("PREFORKD_NIGHTLY") else 3))
def test_a_hostile_worker(service, bystander, seed):
    """Random bytes in its channel and its slot, false pids and lengths, descriptors, an empty message."""
    serve(
        service,
        workers=3,
        target="wsgi:hostile:application",
        more="timeouts: {drain: 2s}\n",
    )
    before, open_before = memory(service.pid), descriptors(service.pid)
    with Load(service.address, keep_alive=0, rate=100) as load:
        for pid in (bystander.pid, os.getpid(), service.zygote(), *service.workers()[:2], 1):
            get(service.address, f"/?gossip={seed},{pid}")
            status = service.status()
            assert status["state"] == "serving"
            assert status["pid"] == service.pid
        load.wait_for(20)
        # However much it has said, each is told to leave, and leaves.
        workers = {row["pid"] for row in service.status()["workers"]}
        assert service.control("reload", "--fresh").returncode == 0
        whole_again(service, 3, workers)
        load.wait_for(20)
    assert load.result.lost == 0, load.result.bad
    assert memory(service.pid) - before < 32 << 20
    assert descriptors(service.pid) <= open_before + 8
    assert len(service.log) < 300_000
    assert "Traceback" not in service.log, service.log
    assert "Exception" not in service.log, service.log
    assert service.stop() == 0


@pytest.mark.parametrize("where", ["channel", "handoff"])
def test_descriptors_whose_close_waits(service, where):
    """A worker sends them, to the master or to other workers, and dies: the master goes on at once."""
    serve(
        service,
        workers=1,
        target="wsgi:hostile:application",
        more="timeouts: {drain: 2s}\n",
    )
    (worker,) = service.workers()
    get(service.address, f"/?stuck={where}")
    os.kill(worker, signal.SIGKILL)
    for _ in range(3):
        assert service.control("reload", "--fresh").returncode == 0
        assert service.status()["state"] == "serving"


def test_a_worker_that_floods(service):
    """What it may say, without end: the master has time for others, says so once, and kills it at last."""
    serve(
        service,
        workers=3,
        target="wsgi:hostile:application",
        more="timeouts: {drain: 6s}\n",
    )
    before = set(service.workers())
    flood = threading.Thread(target=get, args=(service.address, "/?flood"))
    flood.start()
    service.until(lambda _: "sends more than" in service.log)
    spent, begun = cpu_seconds(service.pid), time.monotonic()
    with Load(service.address, keep_alive=0, rate=50) as load:
        load.wait_for(100)
    assert cpu_seconds(service.pid) - spent < (time.monotonic() - begun) / 3
    assert load.result.lost == 0, load.result.bad
    flood.join()
    pids = {row["pid"] for row in service.until(lambda status: status["ready"] == 3)["workers"]}
    assert len(before - pids) == 1
    assert service.log.count("sends more than") == 1
    assert len(service.log) < 20_000
    assert service.stop() == 0


def test_a_hostile_zygote(service, bystander):
    """Random bytes and false claims of births in the zygote's channel while it loads."""
    serve(
        service,
        target="wsgi:hostile:application",
        variables={"VICTIM": str(bystander.pid)},
    )
    assert get(service.address, "/?id=1")[0] == 200
    whole_again(service, 2, set())
    assert "Traceback" not in service.log, service.log
    assert "Exception" not in service.log, service.log
    assert service.stop() == 0
