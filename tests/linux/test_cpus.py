"""CPUs that may be used."""

import os

from preforkd.linux.cpus import usable_cpus


def test_the_affinity_counts(tmp_path):
    """Without a cgroup, the mask decides."""
    assert usable_cpus(str(tmp_path / "none"), str(tmp_path)) == len(os.sched_getaffinity(0))


def test_a_quota_of_any_ancestor_counts(tmp_path):
    """CPUQuota=50% on the slice above is one CPU, rounded up; max is none."""
    (tmp_path / "cgroup").write_text("0::/a.slice/b.service\n")
    places = str(tmp_path / "cgroup"), str(tmp_path)
    inner = tmp_path / "a.slice/b.service"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    assert usable_cpus(*places) == len(os.sched_getaffinity(0))
    (inner.parent / "cpu.max").write_text("50000 100000\n")
    assert usable_cpus(*places) == 1
