"""Compare what a worker has used with its limits: CPU time, descriptors, memory."""

import contextlib

from preforkd.config.settings import Settings
from preforkd.linux import usage

_NINE_TENTHS = 0.9


def reason_to_replace(pid: int, settings: Settings, connections: int, share: float) -> str:
    """Return which limit a worker has reached, as text for the log; empty: none.

    ``connections`` is the number in its slot, ``share`` the part of each limit that applies to it.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):  # it may have ended by now
        limits = settings.limits
        if limits.cpu:
            seconds = usage.cpu_seconds(pid)
            if seconds >= limits.cpu * share:
                return f"it has used {seconds:.1f} s of CPU time"
        opened = usage.descriptors(pid)
        allowed = usage.descriptor_limit(pid)
        if opened >= allowed * _NINE_TENTHS:
            return f"it has {opened} file descriptors open of the {allowed} that the system allows"
        if limits.descriptors and opened - min(connections, opened) >= limits.descriptors * share:
            return f"it has {opened} file descriptors open besides {connections} connections"
    return ""


def too_heavy(private: int, growth: int | None) -> str:
    """Return a text with the private bytes of a worker, and by how much they have grown since its fork."""
    grown = f", {_size(growth)} more than after its fork" if growth is not None else ""
    return f"it has {_size(private)} of private memory{grown}"


def heaviest(weights: list[tuple[int, int]]) -> str:
    """Return a text that lists private bytes and slots of the workers with the most memory."""
    return "most: " + ", ".join(f"worker {slot} {_size(private)}" for private, slot in weights)


def _size(count: int) -> str:
    # To a tenth of a mebibyte; the exact notation of the settings would be unreadable here.
    return f"{count / (1 << 20):.1f} MB"
