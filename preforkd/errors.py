"""Errors and failures, classed by blame: the party that has to act decides the class and the exit status.

::

    PreforkdError
    ├── ConfigurationError   the administrator: a file, an option, a socket unit       78
    ├── ApplicationError     the application: it does not import, start or behave      69
    ├── SystemFailure        the system: a port in use, a missing right, no memory     71
    └── InternalError        preforkd itself: an invariant of our own does not hold    70

A `PreforkdError` is raised; a `Failure` is the same as a value, which crosses a channel (zygote and worker
to master), is stored in the scoreboard and is sent to clients of the control socket. `PreforkdError.failure`
makes the one from the other; `Failure.report` renders either as text.

The numbers are those of sysexits.h, so that ``RestartPreventExitStatus=78`` in a unit means "do not
retry what only an edit can mend".
"""

import errno
from collections.abc import Iterable
from enum import IntEnum, StrEnum

from msgspec import Struct
from msgspec.structs import force_setattr


class ExitStatus(IntEnum):
    """Exit statuses of preforkd and preforkctl."""

    OK = 0
    USAGE = 2
    APPLICATION = 69
    INTERNAL = 70
    SYSTEM = 71
    NOT_RUNNING = 75
    NOT_ALLOWED = 77
    CONFIGURATION = 78


class StatusMeaning(Struct, frozen=True):
    """What an exit status means, as a sentence for guides and manuals; empty: that program never returns it."""

    preforkd: str
    preforkctl: str


EXIT_STATUSES = {
    ExitStatus.OK: StatusMeaning("Ended as requested.", "Done."),
    ExitStatus.USAGE: StatusMeaning(
        "The command line is wrong.",
        "The command line is wrong, or several services run and none was named.",
    ),
    ExitStatus.APPLICATION: StatusMeaning(
        "The application does not import, start or behave.",
        "The reload or the refork failed: the application has to be fixed.",
    ),
    ExitStatus.INTERNAL: StatusMeaning(
        "An error of preforkd itself.",
        "The reload or the refork failed by an error of preforkd itself.",
    ),
    ExitStatus.SYSTEM: StatusMeaning(
        "The system refused something: a port in use, a missing permission.",
        "The reload or the refork failed: the system refused something.",
    ),
    ExitStatus.NOT_RUNNING: StatusMeaning("", "No preforkd runs there, or it is stopping."),
    ExitStatus.NOT_ALLOWED: StatusMeaning("", "This user lacks the permission."),
    ExitStatus.CONFIGURATION: StatusMeaning(
        "The configuration is wrong.",
        "The reload or the refork failed: the configuration has to be fixed.",
    ),
}
"""Every exit status and its meaning."""


class Blame(StrEnum):
    """The party that has to act on a failure."""

    CONFIGURATION = "configuration"
    APPLICATION = "application"
    SYSTEM = "system"
    INTERNAL = "internal"

    @property
    def exit_status(self) -> ExitStatus:
        """The exit status of a program that ends because of such a failure."""
        return ExitStatus[self.name]


DETAIL_LIMIT = 60_000
"""Characters of ``detail`` that are kept: a datagram on a socketpair has room for about 200 KiB."""


class Failure(Struct, frozen=True):
    """Why something did not work: a line, evidence of many lines, and a line on what to do.

    The texts are made fit for a message: valid UTF-8, and a ``detail`` cut at its beginning (the error is at
    the end of a traceback).
    """

    blame: Blame
    reason: str
    detail: str = ""
    hint: str = ""
    setting: str = ""
    """The dotted name of the setting at fault; the master adds the place where it was written."""

    def __post_init__(self) -> None:
        for name in ("reason", "detail", "hint"):
            # The text of an exception may contain lone surrogates, which cannot be encoded.
            text = getattr(self, name).encode("utf-8", "backslashreplace").decode()
            if name == "detail" and len(text) > DETAIL_LIMIT:
                text = "…\n" + text[-DETAIL_LIMIT:]
            force_setattr(self, name, text)

    def report(self, what: str = "") -> str:
        """Return it as lines for a terminal or the journal, without a final newline.

        ``what``: what has failed, in front of the reason.
        """
        parts = [f"{what}: {self.reason}" if what else self.reason]
        if self.detail:
            parts.append(self.detail.rstrip("\n"))
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


class PreforkdError(Exception):
    """An error that a person has to act on.

    ``message`` is one line on what is wrong, ``hint`` one on what to do, ``detail`` any number of lines of
    evidence (a traceback, a search path).
    """

    blame = Blame.INTERNAL
    exit_status = blame.exit_status
    setting = ""
    """The dotted name of the setting at fault, if there is one."""

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def failure(self) -> Failure:
        """Return the error as a value."""
        return Failure(self.blame, self.message, self.detail, self.hint, self.setting)

    def report(self) -> str:
        """Return the error as lines for a terminal or the journal; see `Failure.report`."""
        return self.failure().report()


class ApplicationError(PreforkdError):
    """The application's own code failed; its traceback is in ``detail``."""

    blame = Blame.APPLICATION
    exit_status = blame.exit_status


class SystemFailure(PreforkdError):
    """The operating system refused something that preforkd needs."""

    blame = Blame.SYSTEM
    exit_status = blame.exit_status


_SHORTAGES = {
    errno.EMFILE: "LimitNOFILE= of the service (ulimit -n) bounds the descriptors of each process; files "
    "that are opened and never closed use them up",
    errno.ENFILE: "fs.file-max bounds the open files of the whole system",
    errno.ENOMEM: "the memory of the system, or MemoryMax= of the service, is used up",
}


def shortage(error: BaseException) -> str:
    """Return what to do about an error, or one among its causes, that reports an exhausted resource.

    Empty for any other error.
    """
    known: BaseException | None = error
    for _ in range(16):
        if known is None:
            break
        if isinstance(known, OSError) and known.errno in _SHORTAGES:
            return _SHORTAGES[known.errno]
        known = known.__cause__ or known.__context__
    return ""


def refused(what: str, error: OSError) -> SystemFailure:
    """Return the error of a system call that failed; ``what`` names what was refused."""
    return SystemFailure(f"{what}: {error.strerror or error}", hint=shortage(error))


class InternalError(PreforkdError):
    """An invariant of preforkd's own does not hold."""


class Place(Struct, frozen=True):
    """The place where a setting was written: a file with line and column (from 1), or an option.

    ``line`` 0 means that the place is the whole source (an option, an environment variable, the
    built-in default).
    """

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


UNKNOWN_PLACE = Place("")


class Problem(Struct, frozen=True):
    """One thing that is wrong with a configuration.

    ``setting`` is the dotted path of the key (``timeouts.drain``), empty for the document itself. In a
    zygote or a worker the place is `UNKNOWN_PLACE`: the master knows where a setting was written, and adds it.
    """

    place: Place
    setting: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.without_hint()}{hint}"

    def without_hint(self) -> str:
        """Return place, setting and message, as far as they are known."""
        known = (str(self.place), self.setting, self.message)
        return ": ".join(filter(None, known))


class ConfigurationError(PreforkdError):
    """The configuration is at fault; carries every problem at once.

    A single problem without a place has its hint apart from the message: the place is put in front later.
    """

    blame = Blame.CONFIGURATION
    exit_status = blame.exit_status

    def __init__(self, problems: "list[Problem] | tuple[Problem, ...]", *, hint: str = "") -> None:
        self.problems = tuple(problems)
        self.setting = self.problems[0].setting if self.problems else ""
        more = len(self.problems) - 1
        first = str(self.problems[0]) if self.problems else "the configuration is not valid"
        if self.problems and self.problems[0].place == UNKNOWN_PLACE:
            first, hint = self.problems[0].without_hint(), hint or self.problems[0].hint
        tail = f" (and {more} more problem{'s' if more > 1 else ''})" if more > 0 else ""
        rest = "\n".join(str(problem) for problem in self.problems[1:])
        super().__init__(first + tail, hint=hint, detail=rest)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean WORD?`` for the most similar known word; empty if none is similar."""
    # Imported for a misspelt word only: difflib is 0.4 MB, and the master runs for months.
    import difflib  # noqa: PLC0415

    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]}?" if close else ""
