"""What is made once because it comes again: the Date header, and a bounded memory for anything else."""

import time
from email.utils import formatdate
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """A dictionary of at most ``max_entries`` things; one too many, and all are forgotten.

    What is forgotten costs only the time to make it again, and keeping an order would cost more.
    """

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries = max_entries

    def keep(self, key: K, value: V) -> None:
        """Remember one."""
        if len(self) >= self._max_entries:
            self.clear()
        self[key] = value


class Date:
    """The present time as HTTP has it (RFC 9110, section 5.6.7), as ``form`` % a date.

    Made once a second by whoever needs it: no timer.
    """

    def __init__(self, form: bytes = b"Date: %b\r\n") -> None:
        self._form = form
        self._second = -1
        self._text = b""

    def line(self) -> bytes:
        """Return it."""
        now = int(time.time())
        if now != self._second:  # not only later: the clock may have been set back
            self._second = now
            self._text = self._form % formatdate(now, usegmt=True).encode()
        return self._text
