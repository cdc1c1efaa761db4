"""The application to run, ``KIND:MODULE:ATTRIBUTE``, and other references of settings, ``MODULE:ATTRIBUTE``.

``()`` after the attribute marks a factory, which is called. Its arguments are literals of Python.
"""

import re
from typing import Any

from msgspec import Struct

from preforkd.config.kinds import KINDS
from preforkd.errors import did_you_mean

EXAMPLE = "wsgi:mysite.wsgi:application"

_VISIBLE = re.compile(r"[!-~]+")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Reference(Struct, frozen=True):
    """A reference to an object of a module, or to the module itself (an empty attribute).

    ``call``: the attribute is a factory, which is called with ``arguments`` and ``keywords``.
    """

    module: str
    attribute: str
    call: bool = False
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The reference for messages, without arguments, which may be secret."""
        shown = "(...)" if self.arguments or self.keywords else "()"
        return f"{self.module}:{self.attribute}" + (shown if self.call else "")


class Target(Reference, frozen=True, kw_only=True):
    """A parsed target: a reference with the kind of application."""

    kind: str


def parse_reference(text: str) -> Reference:
    """Parse ``MODULE`` or ``MODULE:ATTRIBUTE``. Raises ValueError."""
    module, colon, attribute = text.partition(":")
    _check_module(module)
    return _called(module, attribute) if colon else Reference(module, "")


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


def parse_target(text: str) -> Target:
    """Parse an ``app.target``. Raises ValueError with a message for the administrator."""
    kind, _, rest = text.partition(":")
    module, second, attribute = rest.partition(":")
    if kind not in KINDS and not (second and "(" not in module):
        raise ValueError(_without_kind(text))
    if kind not in KINDS:
        meant = did_you_mean(kind, KINDS) or f"expected one of {', '.join(KINDS)}"
        raise ValueError(f"unknown kind {kind!r}: {meant}")
    if not second:
        example = f"{kind}:{rest or 'mysite.wsgi'}:application"
        raise ValueError(f"{text!r} is not KIND:MODULE:ATTRIBUTE, for example {example}")
    _check_module(module)
    found = _called(module, attribute)
    return Target(module, found.attribute, found.call, found.arguments, found.keywords, kind=kind)


def _without_kind(text: str) -> str:
    name = text.partition(":")[0]
    module, folder = _module_of_file(name)
    if not (":" in text or folder or name.endswith(".py")):
        return f"{text!r} is not KIND:MODULE:ATTRIBUTE, for example {EXAMPLE}"
    whole = module + (text[len(name) :] or ":app")
    where = f", with app.directory: {folder}" if folder else ""
    return f"{text!r} has no kind: write wsgi:{whole} or asgi:{whole}{where}"


def _module_of_file(name: str) -> tuple[str, str]:
    """Return the module that a file's path stands for, and its directory; a module's name is unchanged."""
    folder, _, file = name.rpartition("/")
    return (file.removesuffix(".py") or name), folder


def _check_module(module: str) -> None:
    if module.endswith(".py"):
        meant, folder = _module_of_file(module)
        where = f", and set app.directory to {folder}" if folder else ""
        raise ValueError(f"{module!r} is the name of a file: write {meant}{where}")
    if not _DOTTED.fullmatch(module):
        raise ValueError(f"{module!r} is not the name of a module, for example mysite.wsgi")


def _called(module: str, text: str) -> Reference:
    attribute, bracket, rest = text.partition("(")
    if not _DOTTED.fullmatch(attribute) or (bracket and not rest.endswith(")")):
        raise ValueError(
            f"{text!r} is not the name of an attribute, for example application or create_app()"
        )
    if rest in {"", ")"}:
        return Reference(module, attribute, bool(bracket))
    return Reference(module, attribute, True, *_arguments(f"({rest}"))


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    # Imported here: few targets have arguments, and each worker would keep the module.
    import ast  # noqa: PLC0415

    try:
        call: ast.AST | None = ast.parse(f"factory{text}", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        call = None
    match call:
        case ast.Call(func=ast.Name(), args=positional, keywords=named):
            names = [each.arg for each in named]
            if None in names or len(set(names)) < len(names):
                raise ValueError(f"{text}: write each argument once, without **")
            try:
                arguments = tuple(ast.literal_eval(each) for each in positional)
                return arguments, {str(each.arg): ast.literal_eval(each.value) for each in named}
            except (ValueError, TypeError, MemoryError, RecursionError):
                raise ValueError(
                    f"the arguments {text} are not literals: a text in quotes, a number, True, None, or a "
                    "list, tuple or dict of these"
                ) from None
    raise ValueError(f"{text!r} is not a list of arguments, for example (root='/srv', debug=False)")
