"""How many CPUs this process may use."""

import math
import os

from preforkd.linux.cgroup import HIERARCHY, MEMBERSHIP, own_folder


def usable_cpus(membership: str = MEMBERSHIP, hierarchy: str = HIERARCHY) -> int:
    """Return the CPUs of the affinity mask, or of the cgroup's quota (CPUQuota=) if it is less.

    At least 1. sched_getaffinity(2), cpu.max of cgroups(7) version 2
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(membership, hierarchy)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _quota(membership: str, hierarchy: str) -> float | None:
    # The smallest quota of this cgroup and its ancestors.
    folder = own_folder(membership, hierarchy) or ""
    found = []
    while len(folder) >= len(hierarchy):
        found.append(_own_quota(folder))
        folder = os.path.dirname(folder)
    return min((quota for quota in found if quota is not None), default=None)


def _own_quota(folder: str) -> float | None:
    try:
        with open(f"{folder}/cpu.max") as file:
            limit, period = file.read().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None
