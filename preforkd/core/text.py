"""Text that others made (an application, a client), made fit to be logged and shown.

Control characters would reach the terminal of whoever reads it, and a line break would begin a line that
looks like another message.
"""

import re

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


def _without_colours(text: str) -> str:
    return _COLOUR.sub("", text) if "\x1b" in text else text


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
