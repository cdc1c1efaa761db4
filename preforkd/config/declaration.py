"""How a setting is declared: its help, its bounds, its unit, and what a reload does with it.

A declaration travels in the type's annotation, as msgspec's Meta; `preforkd.config.fields` reads it back.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta


class OnReload(StrEnum):
    """What a reload does with a changed setting."""

    LIVE = "live"
    """The running master takes the new value; no worker is touched."""
    GENERATION = "generation"
    """A new generation of workers starts with the new value; the old one drains."""
    RESTART = "restart"
    """Only ``systemctl restart`` changes it; a reload logs that and keeps the old value."""


class Unit(StrEnum):
    """How a value is written, where its Python type does not determine it."""

    DURATION = "duration"
    """``30s``, ``1min 30s``, ``500ms``; a bare number is seconds (systemd.time(7)). Held as float."""
    SIZE = "size"
    """``256M``, ``64K``; a bare number is bytes; the base is 1024. Held as int."""
    REQUESTS = "requests"
    """``2000 requests``, or a bare number. Held as int."""
    MODE = "mode"
    """Octal permission bits, ``0660`` or ``660``. Held as int."""


def declare(
    help_: str,
    on_reload: OnReload,
    *,
    ge: float | None = None,
    le: float | None = None,
    unit: Unit | None = None,
    kinds: tuple[str, ...] | None = None,
) -> Meta:
    """Return the annotation of a setting; ``ge`` and ``le`` are its bounds, in the unit in which it is held.

    ``kinds``: the applications for which it has an effect; None: those of its section.
    """
    extra: dict[str, object] = {"on_reload": on_reload.value}
    if unit is not None:
        extra["unit"] = unit.value
    if kinds is not None:
        extra["kinds"] = kinds
    return Meta(description=help_, ge=ge, le=le, extra=extra)


Count = Annotated[int, Meta(ge=1, le=1024)]
"""A number of worker processes."""

Requests = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""A number of requests."""

LIVE, GENERATION, RESTART = OnReload.LIVE, OnReload.GENERATION, OnReload.RESTART

HOUR, DAY = 3600.0, 86400.0
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
