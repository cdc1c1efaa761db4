"""Whose connections a process holds: proc(5), /proc/PID/fd and /proc/net/tcp."""

import contextlib
import os


def held_ports(pid: int) -> list[int]:
    """Return the remote ports of the TCP connections that a process has open; none if it has gone."""
    inodes = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    ports = []
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            fields = line.split()
            if f"socket:[{fields[9]}]" in inodes and fields[2] != "00000000:0000":
                ports.append(int(fields[2].rpartition(":")[2], 16))
    return ports
