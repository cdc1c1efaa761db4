"""What is made once because it comes again."""

from email.utils import parsedate_to_datetime

from hypothesis import given, strategies as st

from preforkd.http import caches
from preforkd.http.caches import BoundedCache, Date


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 20), st.integers())))
def test_a_memory_is_bounded_and_never_wrong(most, kept):
    """What it has is what was kept last under that key; it has the newest, and no more than it may."""
    memory, last = BoundedCache(most), {}
    for key, value in kept:
        memory.keep(key, value)
        last[key] = value
        assert memory[key] == value
        assert len(memory) <= most
        assert memory.items() <= last.items()


def test_the_date_is_made_once_a_second(monkeypatch):
    """It is the present second's, from its beginning to its end, and also when the clock is set back."""
    made, now = [], 1_800_000_000.0

    def formatdate(second, usegmt):
        made.append(second)
        return original(second, usegmt=usegmt)

    original = caches.formatdate
    monkeypatch.setattr(caches, "formatdate", formatdate)
    monkeypatch.setattr(caches.time, "time", lambda: now)
    date = Date()
    seconds = (1_800_000_000.0, 1_800_000_000.99, 1_800_000_001.0, 1_800_000_001.5)
    for now in (*seconds, 1_799_996_400.0):
        line = date.line()
        assert line.startswith(b"Date: ")
        assert line.endswith(b" GMT\r\n")
        assert parsedate_to_datetime(line[6:].decode().strip()).timestamp() == int(now)
    assert made == [1_800_000_000, 1_800_000_001, 1_799_996_400]
    assert Date(b"%b").line() == line[6:-2]
