"""Resource usage of a process: CPU time and descriptors. See proc(5)."""

import os

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, in user mode and in the kernel. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open. Raises OSError."""
    folder = f"/proc/{pid}/fd"
    # The size is the number since Linux 6.2, and 0 before.
    return os.stat(folder).st_size or len(os.listdir(folder))


def descriptor_limit(pid: int) -> int:
    """Return the soft limit of a process's descriptors. Raises OSError."""
    with open(f"/proc/{pid}/limits") as file:
        for line in file:
            if line.startswith("Max open files"):
                soft = line.split()[3]
                return 1 << 30 if soft == "unlimited" else int(soft)
    raise OSError("/proc/PID/limits has no open files")
