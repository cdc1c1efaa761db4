"""The connection of a process to the journal, and the count of the lines that it lost.

A journal that is behind must not stop a server: an entry that cannot be sent is counted, and a warning with
the count is sent before the next entry, or by a thread that retries until the journal takes it.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping

from preforkd.logs import catalog
from preforkd.logs.context import IDENTIFIER, journal_fields, priority
from preforkd.logs.journal import Journal

_RETRY_INTERVAL = 1.0
"""Seconds between attempts to report lost lines."""


class JournalSender:
    """Sends entries to a journal and counts those that are lost.

    ``fields`` returns the journal fields of the process whose lines are sent, for the report of losses.
    """

    def __init__(self, fields: Callable[[], Mapping[str, object]], journal: Journal) -> None:
        self._fields = fields
        self._journal = journal
        self._reporting = threading.Lock()
        self.lost = 0
        """Lines that were lost and not reported yet."""
        self.on_loss: Callable[[], None] = lambda: None
        """Called when a line is lost while none is waiting to be reported."""

    def send(self, entry: bytes) -> None:
        """Send an entry, encoded by `preforkd.logs.journal.encoded`. Raises OSError."""
        if self.lost:
            self.report_losses()
        self._journal.send_encoded(entry)

    def submit(self, entry: bytes) -> None:
        """Send an entry, or count it as lost."""
        try:
            self.send(entry)
        except OSError:
            self.count_lost(1)

    def count_lost(self, lines: int) -> None:
        """Count lines as lost."""
        first = not self.lost
        self.lost += lines
        if first:
            self.on_loss()

    def report_losses(self) -> None:
        """Send a warning with the number of lost lines, if there are any. Raises OSError."""
        # Not twice: another thread, or the code that this signal handler interrupts, is sending it.
        if not self._reporting.acquire(blocking=False):
            return
        try:
            if lost := self.lost:
                self._journal.send(_loss_entry(lost, self._fields()))
                self.lost -= lost
        finally:
            self._reporting.release()

    def close(self) -> None:
        """Close the socket."""
        self._journal.close()


def _loss_entry(lines: int, fields: Mapping[str, object]) -> dict[str, object]:
    if "PREFORKD_WORKER" in fields:
        process = f"worker {fields['PREFORKD_WORKER']}"
    elif "PREFORKD_GENERATION" in fields:
        process = f"the zygote of generation {fields['PREFORKD_GENERATION']}"
    else:
        process = "the master"
    return {
        "MESSAGE": f"{lines} lines of {process} were lost: the journal did not take them",
        "PRIORITY": priority(logging.WARNING),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "MESSAGE_ID": catalog.LINES_LOST.id,
        "PREFORKD_MISSED": lines,
        **fields,
    }


# --- the sender of this process ------------------------------------------------------------------

_sender: JournalSender | None = None


def own() -> JournalSender:
    """Return the sender of this process, opened on first use."""
    return _sender or renew()


def is_open() -> bool:
    """Return whether this process has a sender."""
    return _sender is not None


def renew(*, retry: bool = True) -> JournalSender:
    """Open a sender in place of the one that this process inherited or used before.

    ``retry``: a thread reports losses as soon as the journal takes entries again, without waiting for the
    next entry.
    """
    global _sender  # noqa: PLW0603 - one for each process
    close()
    _sender = JournalSender(journal_fields, Journal())
    if retry:
        _sender.on_loss = _report_losses_later
    return _sender


def close() -> None:
    """Close the socket of this process's sender, if it has one; what is sent afterwards is lost."""
    if _sender is not None:
        _sender.close()


def discard() -> None:
    """Close this process's sender and forget it."""
    global _sender  # noqa: PLW0603
    close()
    _sender = None


def report_losses() -> None:
    """Report the lines that this process lost, if there are any: before it exits."""
    if _sender is not None:
        with contextlib.suppress(OSError):
            _sender.report_losses()


def _report_losses_later() -> None:
    # By a thread, which lives until it succeeds: the process may have nothing more to log.
    with contextlib.suppress(RuntimeError):  # no thread: the next entry reports them
        threading.Thread(target=_retry_report, name="preforkd-losses", daemon=True).start()


def _retry_report() -> None:
    while _sender is not None and _sender.lost:
        time.sleep(_RETRY_INTERVAL)
        report_losses()
