"""What identifies this process in its log records: which worker or zygote it is, of which generation."""

import logging
from typing import Any

IDENTIFIER = "preforkd"
"""SYSLOG_IDENTIFIER= of all entries."""

_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.DEBUG, 7),
)
_context: dict[str, Any] = {}


def set_context(**fields: Any) -> None:
    """Add fields to the records of this process: ``worker``, ``generation``."""
    _context.update(fields)


def remove_context(*names: str) -> None:
    """Remove fields from the records of this process, which has changed its role by a fork."""
    for name in names:
        _context.pop(name, None)


def journal_fields() -> dict[str, object]:
    """Return the journal fields that identify this process: PREFORKD_WORKER, PREFORKD_GENERATION."""
    return {f"PREFORKD_{name.upper()}": value for name, value in _context.items()}


def is_worker() -> bool:
    """Return whether this process is a worker."""
    return "worker" in _context


def message_prefix() -> str:
    """Return what identifies this process at the beginning of a message; empty for the master."""
    worker, generation = _context.get("worker"), _context.get("generation")
    if worker is not None:
        return f"worker {worker} (generation {generation}): "
    return f"zygote (generation {generation}): " if generation is not None else ""


def priority(level: int) -> int:
    """Return the syslog(3) priority of a level of logging."""
    return next((number for least, number in _PRIORITIES if level >= least), 7)
