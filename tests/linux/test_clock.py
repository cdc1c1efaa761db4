"""Times for people."""

import re
import time
from datetime import datetime, timedelta

from preforkd.linux import clock


def test_a_time_of_today_is_short_and_any_other_has_its_date():
    """What an administrator compares with the journal."""
    now = datetime.now().astimezone().replace(hour=12, minute=3, second=4)
    assert clock.time_of_day(now.timestamp()) == "12:03:04"
    other = (now + timedelta(days=3)).strftime("%Y-%m-%d")
    assert clock.time_of_day((now + timedelta(days=3)).timestamp()) == f"{other} 12:03"


def test_a_monotonic_time_is_shown_as_time_of_day():
    """A day ago is yesterday at this time."""
    yesterday = datetime.now().astimezone() - timedelta(days=1)
    told = clock.time_of_day_at(time.monotonic() - 86400)
    after = datetime.now().astimezone() - timedelta(days=1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", told)
    assert f"{yesterday:%Y-%m-%d %H:%M}" <= told <= f"{after:%Y-%m-%d %H:%M}"
