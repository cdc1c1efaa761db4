"""Caches: a bounded dictionary, and the Date header."""

import time
from email.utils import formatdate
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """A dictionary that is cleared when it has ``max_entries`` entries.

    A dropped entry costs the time to make it again; an order of use would cost more at each look-up.
    """

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries = max_entries

    def keep(self, key: K, value: V) -> None:
        """Add an entry."""
        if len(self) >= self._max_entries:
            self.clear()
        self[key] = value


class Date:
    """The current time as an HTTP date (RFC 9110, section 5.6.7), formatted by ``form``.

    Rendered on demand, at most once a second: no timer.
    """

    def __init__(self, form: bytes = b"Date: %b\r\n") -> None:
        self._form = form
        self._second = -1
        self._text = b""

    def line(self) -> bytes:
        """Return the header line."""
        now = int(time.time())
        if now != self._second:  # not <: the clock may have been set back
            self._second = now
            self._text = self._form % formatdate(now, usegmt=True).encode()
        return self._text
