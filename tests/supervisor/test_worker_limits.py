"""What a worker has used, against its limits."""

import os

from preforkd.config.settings import Settings, WorkerLimitSettings
from preforkd.linux import usage
from preforkd.supervisor.worker_limits import reason_to_replace


def limited(**limits):
    return Settings(limits=WorkerLimitSettings(**limits))


def test_without_limits_nobody_is_replaced():
    """Only what the system itself allows counts."""
    assert reason_to_replace(os.getpid(), Settings(), 0, 1.0) == ""


def test_cpu_time():
    """The share of the limit counts."""
    used = usage.cpu_seconds(os.getpid())
    assert reason_to_replace(os.getpid(), limited(cpu=used + 1000), 0, 1.0) == ""
    assert "of CPU time" in reason_to_replace(os.getpid(), limited(cpu=used + 1000), 0, 1e-6)


def test_descriptors_beside_the_connections():
    """Connections in the slot do not count as descriptors, but never more than are open."""
    opened = usage.descriptors(os.getpid())
    low = limited(descriptors=opened)
    assert "file descriptors" in reason_to_replace(os.getpid(), low, 0, 1.0)
    assert reason_to_replace(os.getpid(), low, opened // 2, 1.0) == ""
    assert reason_to_replace(os.getpid(), low, 10**9, 1.0) == ""


def test_descriptors_that_the_system_allows(monkeypatch):
    """Nine tenths of them are a leak, whatever is configured."""
    opened = usage.descriptors(os.getpid())
    monkeypatch.setattr(usage, "descriptor_limit", lambda _pid: opened + 1)
    assert "the system allows" in reason_to_replace(os.getpid(), Settings(), 0, 1.0)


def test_a_worker_that_has_ended_is_nobodys_concern():
    """No error, no reason."""
    assert reason_to_replace(2**22 + 1, limited(cpu=1.0), 0, 1.0) == ""
