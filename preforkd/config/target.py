"""What to run: ``KIND:MODULE:ATTRIBUTE``, with ``()`` behind the attribute of a factory."""

import difflib
import re
from dataclasses import dataclass

KINDS = ("stream", "wsgi", "asgi")
EXAMPLE = "wsgi:mysite.wsgi:application"

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target; ``call`` says that the attribute is a factory to be called."""

    kind: str
    module: str
    attribute: str
    call: bool


def parse_target(text: str) -> Target:
    """Return the target that the text names. Raises ValueError that says what is wrong with it."""
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"{text!r} is not KIND:MODULE:ATTRIBUTE, for example {EXAMPLE}")
    kind, module, attribute = parts
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, 1)
        meant = f"did you mean {close[0]}?" if close else f"it is one of {', '.join(KINDS)}"
        raise ValueError(f"there is no kind {kind!r}: {meant}")
    if not _DOTTED.fullmatch(module):
        raise ValueError(f"{module!r} is not the name of a module, for example mysite.wsgi")
    call = attribute.endswith("()")
    name = attribute.removesuffix("()")
    if not _DOTTED.fullmatch(name):
        raise ValueError(
            f"{attribute!r} is not the name of an attribute, for example application or "
            "create_app()"
        )
    return Target(kind, module, name, call)
