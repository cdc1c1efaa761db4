"""What a child says of itself is gossip: it neither crashes nor misleads the master."""

import os
import subprocess
from pathlib import Path

import pytest
from faults import descriptors, get, serve, whole_again
from load import Load

pytestmark = pytest.mark.process


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
