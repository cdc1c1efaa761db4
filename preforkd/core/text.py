"""Text that others made (an application, a client), made fit to be logged and shown.

Control characters would reach the terminal of whoever reads it, and a line break would begin a line that
looks like another message.
"""

import re
from collections.abc import Collection

from msgspec.structs import replace

from preforkd.errors import ConfigurationError, Failure, Place, PreforkdError

LINE_LIMIT = 2000
"""Characters of a child's text that are shown in one line."""
HIDDEN = "(credential)"
"""What stands for a value that is not to be shown."""
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_INVISIBLE = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""What orders text anew, ends a line in some terminals, or is no character."""
_UNSAFE = re.compile(f"[{_CONTROLS}{_INVISIBLE}]")
_UNSAFE_IN_LINE = re.compile(f"[\t\n{_CONTROLS}{_INVISIBLE}]")


def printable(text: str) -> str:
    """Return one line: colours are left out, other control characters are written as escapes."""
    return _UNSAFE_IN_LINE.sub(_escaped, _without_colours(text))


def printable_lines(text: str) -> str:
    """Return lines: as `printable`, but line breaks and tabs stay."""
    return _UNSAFE.sub(_escaped, _without_colours(text).replace("\r\n", "\n"))


def masked(text: str, secrets: Collection[str]) -> str:
    """Return a text in which these values are not shown, as they are or quoted, where they stand alone."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        for form in {secret, repr(secret)[1:-1]}:
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", HIDDEN, text)
    return text


def presentable(
    failure: Failure, secrets: Collection[str] = (), place: Place | None = None
) -> Failure:
    """Return a child's failure fit to be shown: without control characters and without these values.

    ``place``: where the setting at fault was written; it is put in front of the reason.
    """
    reason, hint = (
        printable(masked(text, secrets)[:LINE_LIMIT]) for text in (failure.reason, failure.hint)
    )
    if place is not None:
        reason = f"{place}: {reason}"
    detail = printable_lines(masked(failure.detail, secrets))
    return Failure(failure.blame, reason, detail, hint)


def hide(error: PreforkdError, secrets: Collection[str]) -> None:
    """Have an error not show these values."""
    error.message, error.hint, error.detail = (
        masked(text, secrets) for text in (error.message, error.hint, error.detail)
    )
    if isinstance(error, ConfigurationError):
        error.problems = tuple(
            replace(
                problem,
                message=masked(problem.message, secrets),
                hint=masked(problem.hint, secrets),
            )
            for problem in error.problems
        )


def _without_colours(text: str) -> str:
    return _COLOUR.sub("", text) if "\x1b" in text else text


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
