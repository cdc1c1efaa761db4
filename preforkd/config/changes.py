"""What differs between two configurations, by what a reload can do about it."""

import msgspec

from preforkd.config.fields import get, leaves
from preforkd.config.settings import OnReload, Settings


class Changes(msgspec.Struct, frozen=True):
    """Dotted names of the settings that differ."""

    live: tuple[str, ...] = ()
    generation: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


def changes(old: Settings, new: Settings) -> Changes:
    """Return the settings that differ, each in the class of what a reload does with it."""
    differing = [leaf for leaf in leaves() if get(old, leaf.path) != get(new, leaf.path)]
    by_class = {
        kind: tuple(leaf.path for leaf in differing if leaf.on_reload is kind) for kind in OnReload
    }
    return Changes(
        live=by_class[OnReload.LIVE],
        generation=by_class[OnReload.GENERATION],
        restart=by_class[OnReload.RESTART],
    )


def keeping_restart(old: Settings, new: Settings) -> Settings:
    """Return the new settings, with the old values where only a restart applies new ones."""
    for leaf in leaves():
        if leaf.on_reload is not OnReload.RESTART:
            continue
        section, _, name = leaf.path.rpartition(".")
        inner = msgspec.structs.replace(getattr(new, section), **{name: get(old, leaf.path)})
        new = msgspec.structs.replace(new, **{section: inner})
    return new
