"""What to run: ``KIND:MODULE:ATTRIBUTE``, and other objects that settings name, ``MODULE:ATTRIBUTE``.

``()`` behind the attribute of a factory says that it is to be called.
"""

import re

from msgspec import Struct

from preforkd.config.kinds import KINDS
from preforkd.errors import did_you_mean

EXAMPLE = "wsgi:mysite.wsgi:application"

_VISIBLE = re.compile(r"[!-~]+")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Target(Struct, frozen=True):
    """A parsed target; ``call`` says that the attribute is a factory to be called."""

    kind: str
    module: str
    attribute: str
    call: bool


class Reference(Struct, frozen=True):
    """An object by name: of a module, or the module itself (an empty attribute)."""

    module: str
    attribute: str
    call: bool


def parse_reference(text: str) -> Reference:
    """Return what ``MODULE`` or ``MODULE:ATTRIBUTE`` names. Raises ValueError."""
    module, colon, attribute = text.partition(":")
    _check_names(module, attribute, optional=not colon)
    return Reference(module, attribute.removesuffix("()"), attribute.endswith("()"))


def is_request(entry: str) -> bool:
    """Tell whether an entry of ``app.warm_up`` is a path or a URL, and no function."""
    return entry.startswith(("/", "http://", "https://"))


def parse_warm_up(entry: str) -> None:
    """Raise ValueError, which says why, if this is no entry of ``app.warm_up``."""
    # The master uses this module, and has no URL to take apart.
    from urllib.parse import urlsplit  # noqa: PLC0415

    if not is_request(entry):
        if not parse_reference(entry).attribute:
            raise ValueError(f"{entry!r} is neither MODULE:FUNCTION nor a path, for example /")
    elif not _VISIBLE.fullmatch(entry):
        raise ValueError(f"{entry!r}: write what is not ASCII, and spaces, as %XX")
    elif not entry.startswith("/"):
        parts = urlsplit(entry)
        host, port = parts.hostname, parts.port  # raises ValueError for what is no port
        if not host or port == 0:
            raise ValueError(f"{entry!r} names no host")


def parse_check(text: str) -> None:
    """Raise ValueError, which says why, if this can be no ``app.check``."""
    if text.startswith("https://"):
        raise ValueError(f"{text!r}: the request is made without TLS, write http://")
    if text and not is_request(text):
        raise ValueError(f"{text!r} is no path, for example /health")
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
    """Return the target that the text names. Raises ValueError that says what is wrong with it."""
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"{text!r} is not KIND:MODULE:ATTRIBUTE, for example {EXAMPLE}")
    kind, module, attribute = parts
    if kind not in KINDS:
        meant = did_you_mean(kind, KINDS) or f"it is one of {', '.join(KINDS)}"
        raise ValueError(f"there is no kind {kind!r}: {meant}")
    _check_names(module, attribute)
    return Target(kind, module, attribute.removesuffix("()"), attribute.endswith("()"))
