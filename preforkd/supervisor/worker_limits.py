"""What a worker has used, held against its limits: CPU time, descriptors, memory."""

import contextlib

from preforkd.config.settings import Settings
from preforkd.linux import usage

_NINE_TENTHS = 0.9


def reason_to_replace(pid: int, settings: Settings, connections: int, share: float) -> str:
    """Return which limit a worker has reached, for people; empty: none.

    ``connections`` are those that it says it has open, ``share`` is the part of each limit that holds
    for it.
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
    """Return in words that a worker has so many bytes to itself, and how many more than at first."""
    grown = f", {_size(growth)} more than after its fork" if growth is not None else ""
    return f"it has {_size(private)} of private memory{grown}"


def heaviest(weights: list[tuple[int, int]]) -> str:
    """Return in words which workers have the most memory to themselves: bytes and slots, in order."""
    return "most: " + ", ".join(f"worker {slot} {_size(private)}" for private, slot in weights)


def _size(count: int) -> str:
    # To a tenth of a mebibyte: what is written in settings would be exact, and unreadable here.
    return f"{count / (1 << 20):.1f} MB"
