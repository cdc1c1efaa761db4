"""Processes of a server, and the memory that each takes: /proc/PID/smaps_rollup, proc(5)."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_QUIET = 0.4
"""Seconds without processor time after which a server has come to rest."""
_TICKS = (11, 12)
"""utime and stime in /proc/PID/stat, behind the name."""


@dataclass(frozen=True)
class Memory:
    """Memory of one process in bytes.

    ``uss`` is what no other process maps, ``pss`` is each page divided by the number of processes that
    map it, ``anonymous`` is without the pages of files, shared or not.
    """

    rss: int
    pss: int
    uss: int
    anonymous: int
    title: str

    def as_record(self) -> dict:
        return asdict(self)


def memory_of(pid: int) -> Memory:
    """Read a process's memory. Raises OSError when it is gone."""
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024
    title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return Memory(
        rss=sizes["Rss"],
        pss=sizes["Pss"],
        uss=sizes["Private_Clean"] + sizes["Private_Dirty"] + sizes["Private_Hugetlb"],
        anonymous=sizes["Anonymous"],
        title=title[:80],
    )


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def family(roots: list[int]) -> list[int]:
    """Return these processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
            except OSError:
                continue
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def _activity(roots: list[int]) -> dict[int, int]:
    used = {}
    for pid in family(roots):
        try:
            fields = _stat(pid)
        except OSError:
            continue
        used[pid] = sum(int(fields[index]) for index in _TICKS)
    return used


def processor_time(roots: list[int]) -> float:
    """Return the processor time in seconds that a server has used, without children that have ended."""
    return sum(_activity(roots).values()) / os.sysconf("SC_CLK_TCK")


def come_to_rest(roots: list[int], least: int, patience: float = 240.0) -> None:
    """Wait until there are at least so many processes and none of them computes any more.

    Raises AssertionError when that does not come to be, and at once when one of the first has ended.
    """
    deadline = time.monotonic() + patience
    before = _activity(roots)
    while time.monotonic() < deadline:
        time.sleep(_QUIET)  # a process that computes nothing gives no event to wait for
        ended = [pid for pid in roots if _stat(pid)[0] == "Z"]
        assert not ended, f"ended: {ended}"
        now = _activity(roots)
        if now == before and len(now) >= least:
            return
        before = now
    raise AssertionError(f"{len(before)} processes, and not at rest: {sorted(before)}")
