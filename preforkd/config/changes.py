"""The differences between two configurations, by what a reload does with them.

The master calls this after it has read the new configuration and before it touches a worker.
"""

from collections.abc import Iterator

import msgspec

from preforkd.config.configuration import Configuration
from preforkd.config.fields import get, leaves
from preforkd.config.settings import AppSettings, OnReload, Settings
from preforkd.errors import Place, Problem


class Changes(msgspec.Struct, frozen=True):
    """Dotted names of the settings that differ, by `OnReload`."""

    live: tuple[str, ...] = ()
    generation: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


def changes(old: Settings, new: Settings) -> Changes:
    """Return the settings whose values differ."""
    differing = [leaf for leaf in leaves() if get(old, leaf.path) != get(new, leaf.path)]
    by_class = {
        kind: tuple(leaf.path for leaf in differing if leaf.on_reload is kind) for kind in OnReload
    }
    return Changes(
        live=by_class[OnReload.LIVE],
        generation=by_class[OnReload.GENERATION],
        restart=by_class[OnReload.RESTART],
    )


def keep_restart_settings(old: Settings, new: Settings) -> Settings:
    """Return the new settings, but with the old values of those that only a restart can change."""
    for leaf in leaves():
        if leaf.on_reload is not OnReload.RESTART:
            continue
        section, _, name = leaf.path.rpartition(".")
        inner = msgspec.structs.replace(getattr(new, section), **{name: get(old, leaf.path)})
        new = msgspec.structs.replace(new, **{section: inner})
    return new


def lost_settings(old: Configuration, new: Configuration, *, listen: bool) -> list[Problem]:
    """Return problems for settings that were written and no longer are, and that a default must not replace.

    An empty, missing or truncated file is far more often an accident than a request for the built-in demo
    on its own port. ``listen``: the sockets that are served depend on the setting ``listen``.
    """
    if old.path is not None and new.path is None:
        hint = "restore it; only a restart of the service applies the defaults"
        return [Problem(Place(old.path), "", "the file was removed", hint)]
    if _in_file(old) and new.path == old.path and not _in_file(new):
        hint = "restore them; only a restart of the service applies the defaults"
        return [
            Problem(Place(new.path or ""), "", "the file no longer contains any settings", hint)
        ]
    return list(_lost(old, new, ("app.target", "listen") if listen else ("app.target",)))


def _in_file(loaded: Configuration) -> bool:
    return any(place.source == loaded.path for place in loaded.origins.values())


def _lost(old: Configuration, new: Configuration, settings: tuple[str, ...]) -> Iterator[Problem]:
    hints = {
        "app.target": f"restore it; for the built-in demo set {AppSettings().target}",
        "listen": f"restore it; for the default set {Settings().listen[0].address}",
    }
    for setting in settings:
        if setting in old.origins and setting not in new.origins:
            message = f"no longer set; it was set at {old.origins[setting]}"
            yield Problem(Place(new.path or "the configuration"), setting, message, hints[setting])
