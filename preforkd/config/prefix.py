"""The mount prefix of an application: its grammar, and what is below it."""

import re

_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")


def parse_prefix(text: str) -> str:
    """Return the prefix that a text names; empty: the application is mounted at the root.

    Raises ValueError with a message for the administrator.
    """
    if text and not _PREFIX.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a prefix: it begins with / and does not end with it, "
            "and has no empty or dot segment, percent sign or query"
        )
    return text


def below(path: str, prefix: str) -> str:
    """Return what follows the prefix in a decoded path.

    A path that is not below the prefix was stripped by the proxy already, and is returned as it is.
    """
    end = len(prefix)
    return path[end:] if path.startswith(prefix) and path[end : end + 1] in {"", "/"} else path


def with_prefix(path: str, prefix: str) -> str:
    """Return a decoded path with the prefix, which the proxy may have stripped; * is no path."""
    return prefix + below(path, prefix) if path.startswith("/") else path
