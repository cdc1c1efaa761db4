"""The configuration of logging: records go to the journal with their fields, or to standard error as lines.

All processes configure it alike.  Loggers below ``preforkd`` are of a class of their own, which calls the one
handler directly: the levels, filters and handlers that an application configures do not apply to them, and
``logging.config.dictConfig()`` cannot disable them.  The application finds logging as the interpreter provides
it; its records reach the same handler only if none of its own handles them (`logging.lastResort`).
"""

import logging
import os

from preforkd.logs import captured, journal, sender
from preforkd.logs.handlers import JournalHandler, StderrHandler

_INTERPRETERS_LAST_RESORT = logging.lastResort
_handler: JournalHandler | StderrHandler | None = None
_level = logging.INFO


def configure(level: str, target: str) -> None:
    """Send records of this level and above to ``journal``, ``stderr``, or what is available (``auto``).

    A journal that is behind may block the process for a second, once.  A record that it does not take goes
    to standard error, as does one for a journal that is gone.  A standard error that is not read blocks the
    process for a second, once; then lines are lost and counted.

    May be called again, and must be called again after an application has been loaded: loggers
    that were created since then become preforkd's.
    """
    global _handler, _level  # noqa: PLW0603 - logging itself is global
    before = _handler
    if _is_native(target):
        sender.renew(retry=False)
        _handler = JournalHandler()
    else:
        sender.discard()
        _handler = StderrHandler()
    _level = logging.getLevelNamesMapping()[level.upper()]
    if logging.lastResort in (_INTERPRETERS_LAST_RESORT, before):
        logging.lastResort = _handler
    own = logging.getLogger("preforkd")
    own.setLevel(_level)
    own.propagate = False
    own.handlers[:] = [_handler]
    for name, each in own.manager.loggerDict.items():
        if isinstance(each, logging.Logger) and f"{name}.".startswith("preforkd."):
            each.__class__ = _PreforkdLogger


def renew_after_fork() -> None:
    """Give this process, which a zygote has forked, a journal socket of its own.

    The socket's buffer is then not filled by other processes.  `configure` would write to about a hundred pages
    that workers share.
    """
    if sender.is_open():
        sender.renew()
    if isinstance(_handler, StderrHandler):
        _handler.reset_losses()


def uses_journal() -> bool:
    """Return whether this process's records go to the journal."""
    return isinstance(_handler, JournalHandler)


def capture_output() -> None:
    """Send what is printed to the journal, if records go there; see `preforkd.logs.captured`."""
    if uses_journal():
        captured.install()


def keep_enabled(name: str) -> None:
    """Keep the logging configuration of an application from disabling this logger of a library.

    logging.config.dictConfig() disables, by default, all loggers that it does not name.
    """
    logging.getLogger(name).__class__ = _AlwaysEnabled


class _AlwaysEnabled(logging.Logger):
    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, _wanted: bool) -> None:
        pass


class _PreforkdLogger(_AlwaysEnabled):
    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return level >= _level

    def handle(self, record: logging.LogRecord) -> None:
        if _handler is not None:
            _handler.handle(record)


def _is_native(target: str) -> bool:
    if target != "auto":
        return target == "journal"
    stream = os.environ.get("JOURNAL_STREAM", "")
    return journal.stderr_is_journal(stream) and os.path.exists(journal.ADDRESS)
