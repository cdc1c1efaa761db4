"""From settings to limits."""

from preforkd.config.settings import (
    AppSettings,
    HttpSettings,
    ReloadSettings,
    Settings,
    TimeoutsSettings,
    WorkersSettings,
)
from preforkd.supervisor.limits import limits_of, linger_of, while_reloading


def test_the_number_of_workers():
    """auto: two for each CPU, at least four; all: as many again while reloading."""
    assert limits_of(Settings(), 1).target == 4
    assert limits_of(Settings(), 8).target == 16
    fixed = limits_of(Settings(workers=WorkersSettings(count=3), reload=ReloadSettings(surge=1)), 8)
    assert (fixed.floor, fixed.target, fixed.maximum, fixed.surge) == (3, 3, 3, 1)
    assert limits_of(Settings(workers=WorkersSettings(count=3)), 8).surge == 3


def test_a_first_start_is_not_retried_where_the_workers_load():
    """An application that does not load would not load again."""
    assert limits_of(Settings(), 1).retry
    assert not limits_of(Settings(app=AppSettings(preload=False)), 1).retry


def test_a_candidate_gets_the_new_patience_and_the_old_sizes():
    """What serves keeps its size until the candidate has taken over."""
    old = limits_of(Settings(workers=WorkersSettings(count=2)), 1)
    new = limits_of(
        Settings(workers=WorkersSettings(count=9), timeouts=TimeoutsSettings(start=1.0, boot=2.0)),
        1,
    )
    during = while_reloading(old, new)
    assert (during.target, during.start, during.boot) == (2, 1.0, 2.0)


def test_idle_connections_leave_before_their_worker_is_killed():
    """The linger is shorter than the drain."""
    assert linger_of(Settings()) == 15.0
    assert (
        linger_of(
            Settings(timeouts=TimeoutsSettings(drain=1.0), http=HttpSettings(keep_alive=10.0))
        )
        == 0.8
    )


def test_an_elastic_pool_begins_with_its_minimum():
    """min and max; spare is passed on; the surge of all is that of the largest pool."""
    limits = limits_of(Settings(workers=WorkersSettings(min=2, max=9, spare=3)), 8)
    assert (limits.floor, limits.target, limits.maximum) == (3, 3, 9)
    assert (limits.spare, limits.surge, limits.elastic) == (3, 9, True)
    assert limits_of(Settings(workers=WorkersSettings(max=9)), 8).floor == 1
    assert limits_of(Settings(workers=WorkersSettings(max=9, spare=2)), 8).floor == 2


def test_a_size_by_hand_is_fixed():
    """Whatever the settings say."""
    limits = limits_of(Settings(workers=WorkersSettings(min=2, max=9)), 8, 20)
    assert (limits.floor, limits.maximum, limits.elastic) == (20, 20, False)
