"""The time of day, for messages.

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
    """Return the time of day of a monotonic time, by the present setting of the clock."""
    return time_of_day(time.time() + monotonic - time.monotonic())
