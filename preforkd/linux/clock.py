"""Times for people: the time of day.

clock_gettime(2)
"""

import time
from datetime import datetime


def time_of_day(unix: float) -> str:
    """Return a time as ``14:03:12``; with the date, and without the seconds, if that is not today."""
    when = datetime.fromtimestamp(unix).astimezone()
    today = datetime.now().astimezone().date()
    return when.strftime("%H:%M:%S" if when.date() == today else "%Y-%m-%d %H:%M")


def time_of_day_at(monotonic: float) -> str:
    """Return when a monotonic time was, or will be, by the wall clock as it is set now."""
    return time_of_day(time.time() + monotonic - time.monotonic())
