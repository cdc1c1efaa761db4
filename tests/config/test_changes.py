"""What a reload can do about what has changed."""

import pytest
from msgspec.structs import replace

from preforkd.config import sources
from preforkd.config.changes import Changes, changes, keeping_restart, vanished
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


def test_changes_are_sorted_by_what_they_need():
    """Live, a new generation, or a restart."""
    assert changes(OLD, OLD) == Changes()
    assert changes(OLD, NEW) == Changes(
        live=("workers.count", "timeouts.drain", "log.level", "control.group"),
        generation=("app.target",),
        restart=("log.target", "control.socket"),
    )


def test_what_needs_a_restart_keeps_its_value():
    """All else is new."""
    kept = keeping_restart(OLD, NEW)
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
    (problem,) = vanished(read(SHOP), read(text), listen=True)
    assert "preforkd.yaml: the file contains no settings any more" in str(problem)
    old, new = (read(one, ON_THE_COMMAND_LINE) for one in ("workers: 3", text))
    assert len(vanished(old, new, listen=True)) == 1


def test_a_file_that_is_gone_is_refused(read):
    """Also when the application is given on the command line; one that never was is no loss."""
    for options in (None, ON_THE_COMMAND_LINE):
        (problem,) = vanished(read(SHOP, options), read(None, options), listen=True)
        assert "preforkd.yaml: the file is gone" in str(problem)
    old, new = read(None, ON_THE_COMMAND_LINE), read(None, ON_THE_COMMAND_LINE)
    assert vanished(old, new, listen=True) == []
    assert vanished(read(None), read(SHOP), listen=True) == []


@pytest.mark.parametrize("app", ["", "app:\n", "app: {target: ~}\n", "app: {directory: /srv}\n"])
def test_a_target_that_vanishes_is_refused(read, app):
    """With the place where it was, and what asks for the demo."""
    (problem,) = vanished(read(SHOP), read(f"{app}listen: :80\n"), listen=True)
    assert problem.setting == "app.target"
    assert problem.place.source.endswith("/preforkd.yaml")
    assert "preforkd.yaml:1:15" in problem.message
    new = read(f"{app}listen: :80\n")
    assert vanished(read(SHOP), new, listen=False) == [problem]
    assert "write stream:preforkd.apps.demo:greet" in problem.hint
    demo = read("app: {target: 'stream:preforkd.apps.demo:greet'}\nlisten: :80\n")
    assert vanished(read(SHOP), demo, listen=True) == []


def test_an_address_that_vanishes_is_refused(read):
    """Unless nothing that is served depends on it, as where systemd passes the sockets."""
    new = read("app: {target: 'wsgi:shop:application'}\n")
    (problem,) = vanished(read(SHOP), new, listen=True)
    assert problem.setting == "listen"
    assert "write 127.0.0.1:8080" in problem.hint
    assert vanished(read(SHOP), new, listen=False) == []


def test_what_changes_otherwise_is_no_loss(read):
    """Another target, another address, fewer settings; and who never had an application has the demo."""
    new = read("app: {target: 'wsgi:shop:other'}\nlisten: :81\n")
    assert vanished(read(SHOP), new, listen=True) == []
    assert vanished(read("workers: 3"), read("workers: 4"), listen=True) == []
    assert vanished(read(""), read(""), listen=True) == []


def test_a_nested_setting_and_an_unchanged_file_are_compared_as_well():
    """By the path of the leaf; what an administrator moved to another file is no loss."""
    new = replace(OLD, memory=replace(OLD.memory, refork=ReforkSettings(after=5)))
    assert changes(OLD, new) == Changes(live=("memory.refork.after",))
    assert keeping_restart(OLD, new) == new
    assert keeping_restart(NEW, OLD).log.target == "stderr"
    assert keeping_restart(NEW, OLD).log.level == OLD.log.level
