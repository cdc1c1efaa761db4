"""An interface's description, as `varlinkctl introspect` shows it, from the Structs that declare it.

https://varlink.org/Interface-Definition
"""

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from preforkd.control.varlink import Interface

_NAMES = {bool: "bool", int: "int", float: "float", str: "string"}


def description(interface: Interface) -> str:
    """Return the description. Raises TypeError for what Varlink has no type for."""
    types: dict[str, str] = {}
    methods = [
        f"{_comment(method.parameters.__doc__)}method {method.parameters.__name__}"
        f"{_fields(method.parameters, types)} -> {_fields(method.result, types)}\n"
        for method in interface.methods
    ]
    errors = [
        f"{_comment(error.__doc__)}error {error.__name__} {_fields(error, types)}\n"
        for error in interface.errors
    ]
    named = [f"{text}\n" for text in types.values()]
    head = f"{_comment(interface.description)}interface {interface.name}\n"
    return "\n".join([head, *named, *methods, *errors])


def _comment(text: str | None) -> str:
    lines = (line.strip() for line in (text or "").strip().splitlines())
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _fields(struct: type[msgspec.Struct], types: dict[str, str]) -> str:
    return f"({', '.join(_described(struct, types))})"


def _described(struct: type[msgspec.Struct], types: dict[str, str]) -> Iterator[str]:
    hints = get_type_hints(struct)
    for name in struct.__struct_fields__:
        yield f"{name}: {_type(hints[name], types)}"


def _type(hint: Any, types: dict[str, str]) -> str:
    """Return a type's name; what a Struct consists of is added to ``types``, the inner ones first."""
    if hint in _NAMES:
        return _NAMES[hint]
    arguments = get_args(hint)
    if get_origin(hint) is list:
        return f"[]{_type(arguments[0], types)}"
    if get_origin(hint) is UnionType and len(arguments) == 2 and NoneType in arguments:
        (some,) = (argument for argument in arguments if argument is not NoneType)
        return f"?{_type(some, types)}"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        name = hint.__name__
        if name not in types:
            fields = _fields(hint, types)
            types[name] = f"{_comment(hint.__doc__)}type {name} {fields}"
        return name
    raise TypeError(f"Varlink has no type for {hint!r}")
