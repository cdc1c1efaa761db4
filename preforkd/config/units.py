"""Durations, sizes and permissions as an administrator writes them, and back.

systemd.time(7), systemd.resource-control(5)
"""

import re

_SECONDS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
}
_BYTES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""The words of YAML 1.1 and of systemd."""

_DURATION_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_REQUESTS = re.compile(r"([0-9]{1,18})(?:\s*requests?)?")
_MODE = re.compile(r"(0o?)?([0-7]{1,4})")


def parse_duration(text: str) -> float:
    """Return seconds for ``30s``, ``1min 30s``, ``500ms`` or a bare number of seconds.

    Raises ValueError.
    """
    total, position, stripped = 0.0, 0, text.strip()
    while position < len(stripped):
        match = _DURATION_PART.match(stripped, position)
        bare = match is not None and not match[2]
        if match is None or (bare and match.end() != len(stripped)) or (bare and position):
            raise ValueError(f"{text!r} is not a duration, for example 30s, 1min 30s or 500ms")
        unit = match[2] or "s"
        if unit not in _SECONDS:
            raise ValueError(f"{text!r}: unknown unit {unit!r}; use us, ms, s, min, h or d")
        total += float(match[1]) * _SECONDS[unit]
        position = match.end()
    if not stripped:
        raise ValueError("empty; expected a duration, for example 30s")
    return total


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as this many seconds."""
    if seconds and seconds < 1 and round(seconds * 1e6) % 1000:
        return f"{round(seconds * 1e6)}us"
    if seconds != int(seconds):
        return f"{round(seconds * 1e3)}ms" if seconds < 1 else f"{seconds!r}s"
    rest, parts = int(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if rest >= length:
            parts.append(f"{rest // length}{unit}")
            rest %= length
    if rest or not parts:
        parts.append(f"{rest}s")
    return " ".join(parts)


def parse_size(text: str) -> int:
    """Return bytes for ``256M``, ``64K``, ``1.5G`` or a bare number; the base is 1024.

    Raises ValueError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size, for example 64K, 256M or 1G")
    return int(float(match[1]) * _BYTES[match[2].upper()])


def parse_requests(text: str) -> int:
    """Return the number in ``2000 requests`` or a bare number. Raises ValueError."""
    match = _REQUESTS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a number of requests, for example 2000 requests")
    return int(match[1])


def format_size(size: int) -> str:
    """Return the shortest text that `parse_size` reads as this many bytes."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)


def parse_mode(text: str) -> int:
    """Return permission bits for ``0660``, ``660`` or ``0o660``: always octal. Raises ValueError."""
    match = _MODE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a mode of octal digits, for example 0660")
    return int(match[2], 8)


def format_mode(mode: int) -> str:
    """Return permission bits in four octal digits."""
    return f"{mode:04o}"
