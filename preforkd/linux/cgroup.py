"""The service's cgroup: its processes and its OOM kills. cgroups(7), version 2."""

import os
import select
import time

MEMBERSHIP = "/proc/self/cgroup"
HIERARCHY = "/sys/fs/cgroup"


def own_folder(membership: str = MEMBERSHIP, hierarchy: str = HIERARCHY) -> str | None:
    """Return the folder of this process's cgroup; None without version 2."""
    try:
        with open(membership) as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    return None if path is None else hierarchy + path.rstrip("/")


def wait_until_alone(timeout: float, folder: str | None = None) -> list[int]:
    """Wait until no other process is in this process's cgroup, for at most ``timeout`` seconds.

    Returns the pids that are left; empty also without version 2. pidfd_open(2)
    """
    folder = folder or own_folder()
    deadline = time.monotonic() + timeout
    while others := _others(folder):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        _wait_for_one(others, remaining)
    return others


def _others(folder: str | None) -> list[int]:
    if folder is None:
        return []
    try:
        with open(f"{folder}/cgroup.procs") as file:
            pids = [int(line) for line in file]
    except OSError:
        return []
    # 0: a process of another PID namespace.
    return [pid for pid in pids if pid not in {0, os.getpid()}]


def _wait_for_one(pids: list[int], timeout: float) -> None:
    ends = []
    poller = select.poll()
    try:
        for pid in pids:
            try:
                ends.append(os.pidfd_open(pid))
            except ProcessLookupError:
                return
            poller.register(ends[-1], select.POLLIN)
        poller.poll(timeout * 1000)
    finally:
        for end in ends:
            os.close(end)


class OomKills:
    """The number of OOM kills in this cgroup."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder or own_folder()
        self._count = self._read()

    def increased(self) -> bool:
        """Return whether there were OOM kills since the last call."""
        before, self._count = self._count, self._read()
        return self._count > before

    def _read(self) -> int:
        if self._folder is None:
            return 0
        try:
            with open(f"{self._folder}/memory.events") as file:
                words = file.read().split()
            return int(words[words.index("oom_kill") + 1])
        except (OSError, ValueError, IndexError):
            return 0
