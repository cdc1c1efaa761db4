"""Differences between configurations, and settings that a reload must not drop."""

import pytest
from msgspec.structs import replace

from preforkd.config import sources
from preforkd.config.changes import Changes, changes, keep_restart_settings, lost_settings
from preforkd.config.settings import (
    AppSettings,
    ControlSettings,
    LogSettings,
    ReforkSettings,
    Settings,
    TimeoutsSettings,
    WorkersSettings,
)

OLD = Settings()
NEW = replace(
    OLD,
    app=AppSettings(target="wsgi:a:b"),
    workers=WorkersSettings(count=7),
    timeouts=TimeoutsSettings(drain=1.0),
    log=LogSettings(level="debug", target="stderr"),
    control=ControlSettings(socket="/x", group="admin"),
)


def test_changes_are_classified_by_what_they_need():
    """Live, a new generation, or a restart."""
    assert changes(OLD, OLD) == Changes()
    assert changes(OLD, NEW) == Changes(
        live=("workers.count", "timeouts.drain", "log.level", "control.group"),
        generation=("app.target",),
        restart=("log.target", "control.socket"),
    )


def test_settings_that_need_a_restart_keep_their_values():
    """All others have their new values."""
    kept = keep_restart_settings(OLD, NEW)
    assert changes(OLD, kept).restart == ()
    assert changes(kept, NEW) == Changes(restart=("log.target", "control.socket"))


# --- what must not vanish ------------------------------------------------------------------------

SHOP = "app: {target: 'wsgi:shop:application'}\nlisten: :80\nworkers: 3\n"
ON_THE_COMMAND_LINE: dict[str, object] = {"app.target": "wsgi:shop:application"}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a text (None: no such file) as the default file, with options."""
    path = tmp_path / "preforkd.yaml"
    monkeypatch.setattr(sources, "DEFAULT_PATH", str(path))

    def read(text, options=None):
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        return sources.load(None, options or {})

    return read


@pytest.mark.parametrize("text", ["", "null", "# workers: 3\n", "---\n", "app:\n", "app: {}"])
def test_a_file_without_settings_is_refused(read, text):
    """Whatever is left of it: also when the application is given on the command line."""
    (problem,) = lost_settings(read(SHOP), read(text), listen=True)
    assert "preforkd.yaml: the file no longer contains any settings" in str(problem)
    old, new = (read(one, ON_THE_COMMAND_LINE) for one in ("workers: 3", text))
    assert len(lost_settings(old, new, listen=True)) == 1


def test_a_removed_file_is_refused(read):
    """Also when the application is given on the command line; a file that never existed is not removed."""
    for options in (None, ON_THE_COMMAND_LINE):
        (problem,) = lost_settings(read(SHOP, options), read(None, options), listen=True)
        assert "preforkd.yaml: the file was removed" in str(problem)
    old, new = read(None, ON_THE_COMMAND_LINE), read(None, ON_THE_COMMAND_LINE)
    assert lost_settings(old, new, listen=True) == []
    assert lost_settings(read(None), read(SHOP), listen=True) == []


@pytest.mark.parametrize("app", ["", "app:\n", "app: {target: ~}\n", "app: {directory: /srv}\n"])
def test_a_removed_target_is_refused(read, app):
    """With the place where it was set, and how to configure the demo."""
    (problem,) = lost_settings(read(SHOP), read(f"{app}listen: :80\n"), listen=True)
    assert problem.setting == "app.target"
    assert problem.place.source.endswith("/preforkd.yaml")
    assert "preforkd.yaml:1:15" in problem.message
    new = read(f"{app}listen: :80\n")
    assert lost_settings(read(SHOP), new, listen=False) == [problem]
    assert "set stream:preforkd.apps.demo:greet" in problem.hint
    demo = read("app: {target: 'stream:preforkd.apps.demo:greet'}\nlisten: :80\n")
    assert lost_settings(read(SHOP), demo, listen=True) == []


def test_a_removed_address_is_refused(read):
    """Unless no served socket depends on it, for example because systemd passes all of them."""
    new = read("app: {target: 'wsgi:shop:application'}\n")
    (problem,) = lost_settings(read(SHOP), new, listen=True)
    assert problem.setting == "listen"
    assert "set 127.0.0.1:8080" in problem.hint
    assert lost_settings(read(SHOP), new, listen=False) == []


def test_other_changes_are_allowed(read):
    """Another target or address, fewer settings, and no application where there was none."""
    new = read("app: {target: 'wsgi:shop:other'}\nlisten: :81\n")
    assert lost_settings(read(SHOP), new, listen=True) == []
    assert lost_settings(read("workers: 3"), read("workers: 4"), listen=True) == []
    assert lost_settings(read(""), read(""), listen=True) == []


def test_a_nested_setting_and_an_unchanged_file_are_compared_as_well():
    """By the whole path; settings with their new values are not lost."""
    new = replace(OLD, memory=replace(OLD.memory, refork=ReforkSettings(after=5)))
    assert changes(OLD, new) == Changes(live=("memory.refork.after",))
    assert keep_restart_settings(OLD, new) == new
    assert keep_restart_settings(NEW, OLD).log.target == "stderr"
    assert keep_restart_settings(NEW, OLD).log.level == OLD.log.level
