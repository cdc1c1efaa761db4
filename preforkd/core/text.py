"""Text of an application or a client, made fit for the log and the terminal.

Control characters would reach the terminal of a reader of the log, and a line break would begin a line that looks
like another message.
"""

import re
from collections.abc import Collection

from msgspec.structs import replace

from preforkd.errors import ConfigurationError, Failure, Place, PreforkdError

LINE_LIMIT = 2000
"""Characters of a child's text that are shown in one line."""
HIDDEN = "(credential)"
"""Replaces a secret value."""
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_INVISIBLE = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""Bidirectional controls, line ends of some terminals, and lone surrogates."""
_UNSAFE = re.compile(f"[{_CONTROLS}{_INVISIBLE}]")
_UNSAFE_IN_LINE = re.compile(f"[\t\n{_CONTROLS}{_INVISIBLE}]")


def printable(text: str) -> str:
    """Return the text as one line, without colours, other control characters escaped."""
    return _UNSAFE_IN_LINE.sub(_escaped, _without_colours(text))


def printable_lines(text: str) -> str:
    """Return the text as by `printable`, but with its line breaks and tabs."""
    return _UNSAFE.sub(_escaped, _without_colours(text).replace("\r\n", "\n"))


def masked(text: str, secrets: Collection[str]) -> str:
    """Return the text with these values replaced, plain or quoted, where they are whole words."""
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
    """Replace these values in an error's texts."""
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
