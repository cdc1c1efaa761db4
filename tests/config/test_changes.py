"""What a reload can do about what has changed."""

from msgspec.structs import replace

from preforkd.config.changes import Changes, changes, keeping_restart
from preforkd.config.settings import App, Control, Log, Settings, Timeouts, Workers

OLD = Settings()
NEW = replace(
    OLD,
    app=App(target="wsgi:a:b"),
    workers=Workers(count=7),
    timeouts=Timeouts(drain=1.0),
    log=Log(level="debug", target="stderr"),
    control=Control(socket="/x", group="admin"),
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
