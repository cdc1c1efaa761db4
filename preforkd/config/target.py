"""The application to run, ``KIND:MODULE:ATTRIBUTE``, and other references of settings, ``MODULE:ATTRIBUTE``.

``()`` after the attribute marks a factory, which is called.
"""

import re

from msgspec import Struct

from preforkd.config.kinds import KINDS
from preforkd.errors import did_you_mean

EXAMPLE = "wsgi:mysite.wsgi:application"

_VISIBLE = re.compile(r"[!-~]+")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Target(Struct, frozen=True):
    """A parsed target; ``call``: the attribute is a factory."""

    kind: str
    module: str
    attribute: str
    call: bool


class Reference(Struct, frozen=True):
    """A reference to an object of a module, or to the module itself (an empty attribute)."""

    module: str
    attribute: str
    call: bool


def parse_reference(text: str) -> Reference:
    """Parse ``MODULE`` or ``MODULE:ATTRIBUTE``. Raises ValueError."""
    module, colon, attribute = text.partition(":")
    _check_names(module, attribute, optional=not colon)
    return Reference(module, attribute.removesuffix("()"), attribute.endswith("()"))


def is_request(entry: str) -> bool:
    """Return whether an entry of ``app.warm_up`` is a path or a URL, not a function."""
    return entry.startswith(("/", "http://", "https://"))


def parse_warm_up(entry: str) -> None:
    """Raise ValueError if a text is not a valid entry of ``app.warm_up``."""
    # Imported here: the master imports this module, but parses no URL.
    from urllib.parse import urlsplit  # noqa: PLC0415

    if not is_request(entry):
        if not parse_reference(entry).attribute:
            raise ValueError(f"{entry!r} is neither MODULE:FUNCTION nor a path, for example /")
    elif not _VISIBLE.fullmatch(entry):
        raise ValueError(f"{entry!r}: write spaces and non-ASCII characters as %XX")
    elif not entry.startswith("/"):
        parts = urlsplit(entry)
        host, port = parts.hostname, parts.port  # raises ValueError for an invalid port
        if not host or port == 0:
            raise ValueError(f"{entry!r} has no host")


def parse_check(text: str) -> None:
    """Raise ValueError if a text is not a valid ``app.check``."""
    if text.startswith("https://"):
        raise ValueError(f"{text!r}: the trial request is sent without TLS, write http://")
    if text and not is_request(text):
        raise ValueError(f"{text!r} is not a path, for example /health")
    if text:
        parse_warm_up(text)


def _check_names(module: str, attribute: str, *, optional: bool = False) -> None:
    if not _DOTTED.fullmatch(module):
        raise ValueError(f"{module!r} is not the name of a module, for example mysite.wsgi")
    if optional and not attribute:
        return
    if not _DOTTED.fullmatch(attribute.removesuffix("()")):
        raise ValueError(
            f"{attribute!r} is not the name of an attribute, for example application or "
            "create_app()"
        )


def parse_target(text: str) -> Target:
    """Parse an ``app.target``. Raises ValueError with a message for the administrator."""
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"{text!r} is not KIND:MODULE:ATTRIBUTE, for example {EXAMPLE}")
    kind, module, attribute = parts
    if kind not in KINDS:
        meant = did_you_mean(kind, KINDS) or f"expected one of {', '.join(KINDS)}"
        raise ValueError(f"unknown kind {kind!r}: {meant}")
    _check_names(module, attribute)
    return Target(kind, module, attribute.removesuffix("()"), attribute.endswith("()"))
