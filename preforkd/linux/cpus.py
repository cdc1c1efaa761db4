"""How many CPUs this process may use."""

import math
import os
from pathlib import Path

from preforkd.linux.cgroup import own_folder


def usable_cpus(
    membership: Path = Path("/proc/self/cgroup"), hierarchy: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the CPUs of the affinity mask, or of the cgroup's quota (CPUQuota=) if it is less.

    At least 1. sched_getaffinity(2), cpu.max of cgroups(7) version 2
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(membership, hierarchy)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _quota(membership: Path, hierarchy: Path) -> float | None:
    # The tightest of our own cgroup and all above it.
    group = own_folder(membership, hierarchy)
    if group is None:
        return None
    found = [_own_quota(folder) for folder in (group, *group.parents)]
    return min((quota for quota in found if quota is not None), default=None)


def _own_quota(folder: Path) -> float | None:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None
