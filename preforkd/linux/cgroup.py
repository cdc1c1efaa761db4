"""What the kernel counts for the service's own cgroup: cgroups(7), version 2."""

from pathlib import Path

_HIERARCHY = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def own_folder(membership: Path = _MEMBERSHIP, hierarchy: Path = _HIERARCHY) -> Path | None:
    """Return the folder of this process's cgroup; None without version 2."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    return None if path is None else hierarchy / path.lstrip("/")


class OomKills:
    """How often the kernel has killed in this cgroup for want of memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or own_folder()
        self._count = self._read()

    def increased(self) -> bool:
        """Tell whether it has done so since this was asked last."""
        before, self._count = self._count, self._read()
        return self._count > before

    def _read(self) -> int:
        if self._folder is None:
            return 0
        try:
            words = (self._folder / "memory.events").read_text().split()
            return int(words[words.index("oom_kill") + 1])
        except (OSError, ValueError, IndexError):
            return 0
