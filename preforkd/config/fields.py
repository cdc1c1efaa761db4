"""The settings as data: the declarations of `preforkd.config.settings`, for code that derives from them."""

import typing
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from preforkd.config import units
from preforkd.config.kinds import ALL_KINDS
from preforkd.config.settings import ListenSettings, OnReload, Settings


class Form(StrEnum):
    """How a setting is written."""

    TEXT = "text"
    INTEGER = "integer"
    CHOICE = "choice"
    DURATION = "duration"
    SIZE = "size"
    REQUESTS = "requests"
    MODE = "mode"
    FLAG = "flag"
    """``true`` or ``false``."""
    LIST = "list"
    """One text, or a list of texts."""
    NAMES = "names"
    """A mapping of names to texts."""
    LISTEN = "listen"
    SECTION = "section"


class Field(msgspec.Struct, frozen=True):
    """One setting. ``choices``: words that are allowed as its value. ``struct``: the class of a section."""

    path: str
    form: Form
    default: Any
    help: str = ""
    on_reload: OnReload = OnReload.GENERATION
    ge: float | None = None
    le: float | None = None
    choices: tuple[str, ...] = ()
    struct: type[msgspec.Struct] | None = None
    short: str = ""
    """The setting of a section that a single value in place of the section sets."""
    kinds: tuple[str, ...] = ALL_KINDS
    """The kinds of applications for which it has an effect."""

    @property
    def name(self) -> str:
        """The last part of the dotted path."""
        return self.path.rpartition(".")[2]

    def write(self, value: Any) -> str:
        """Return a value as it is written in the file."""
        return value if isinstance(value, str) else _WRITERS.get(self.form, str)(value)

    def allowed(self) -> str:
        """Return a description of the allowed values."""
        words = {
            Form.TEXT: "text",
            Form.INTEGER: "a whole number",
            Form.CHOICE: "",
            Form.DURATION: "a duration",
            Form.SIZE: "a size",
            Form.REQUESTS: "a number of requests",
            Form.MODE: "octal permissions",
            Form.FLAG: "true or false",
            Form.LIST: "a text, or a list of texts",
            Form.NAMES: "a mapping of names to values",
            Form.LISTEN: "an address, or a list of addresses or mappings",
            Form.SECTION: "a mapping",
        }[self.form]
        if self.ge is not None and self.le is not None and self.form is not Form.MODE:
            words += (
                f" from {self.write(self._typed(self.ge))} to {self.write(self._typed(self.le))}"
            )
        if self.choices:
            words += (", or " if words else "one of ") + ", ".join(self.choices)
        return words

    def _typed(self, bound: float) -> float | int:
        return bound if self.form is Form.DURATION else int(bound)


_WRITERS: dict[Form, Callable[[Any], str]] = {
    Form.FLAG: lambda value: "true" if value else "false",
    Form.LIST: lambda value: f"[{', '.join(value)}]",
    Form.DURATION: units.format_duration,
    Form.SIZE: units.format_size,
    Form.MODE: units.format_mode,
}


@cache
def fields_of(struct: type[msgspec.Struct], prefix: str = "") -> tuple[Field, ...]:
    """Return the settings of a struct in their order; their paths begin with the prefix."""
    hints = typing.get_type_hints(struct, include_extras=True)
    defaults = struct()
    kinds = getattr(struct, "KINDS", ALL_KINDS)
    return tuple(
        _field(prefix + info.name, hints[info.name], getattr(defaults, info.name), kinds)
        for info in msgspec.structs.fields(struct)
    )


def leaves(struct: type[msgspec.Struct] = Settings, prefix: str = "") -> Iterator[Field]:
    """Yield every setting that is not a section."""
    for field in fields_of(struct, prefix):
        if field.struct is not None and field.form is Form.SECTION:
            yield from leaves(field.struct, field.path + ".")
        else:
            yield field


def get(settings: msgspec.Struct, path: str) -> Any:
    """Return the value at a dotted path."""
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _field(path: str, hint: Any, default: Any, kinds: tuple[str, ...]) -> Field:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        short = getattr(hint, "SHORT", "")
        return Field(
            path, Form.SECTION, default, help=_help_of_section(hint), struct=hint, short=short
        )
    plain, meta = _unwrap(hint)
    assert meta is not None
    extra = meta.extra or {}
    form, number, choices = _form(plain, extra.get("unit"))
    bounds = number or meta
    kinds = extra.get("kinds", kinds)
    only = f" Only for kind {' and '.join(kinds)}." if kinds != ALL_KINDS else ""
    return Field(
        path,
        form,
        default,
        help=(meta.description or "") + only,
        on_reload=OnReload(extra["on_reload"]),
        ge=bounds.ge,
        le=bounds.le,
        choices=choices,
        struct=ListenSettings if form is Form.LISTEN else None,
        kinds=kinds,
    )


def _help_of_section(struct: type) -> str:
    # The docstring is what an administrator reads above the section, without the markup of code.
    return " ".join((struct.__doc__ or "").replace("``", "").split())


def _unwrap(hint: Any) -> tuple[Any, msgspec.Meta | None]:
    if get_origin(hint) is Annotated:
        plain, *metas = get_args(hint)
        return plain, metas[0]
    return hint, None


def _form(plain: Any, unit: str | None) -> tuple[Form, msgspec.Meta | None, tuple[str, ...]]:
    words: tuple[str, ...] = ()
    if get_origin(plain) in {typing.Union, UnionType}:
        plain, choices = get_args(plain)
        words = get_args(choices)
    plain, number = _unwrap(plain)
    if unit is not None:
        return Form(unit), number, words
    origin = get_origin(plain) or plain
    if origin is Literal:
        return Form.CHOICE, None, get_args(plain)
    if origin is tuple and get_args(plain)[0] is str:
        return Form.LIST, None, ()
    simple = {
        str: Form.TEXT,
        bool: Form.FLAG,
        int: Form.INTEGER,
        dict: Form.NAMES,
        tuple: Form.LISTEN,
    }
    return simple[origin], number, words
