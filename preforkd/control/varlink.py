"""How a Varlink interface is declared: methods, parameters and errors are Structs.

`preforkd.control.dispatch` checks calls against them, `preforkd.control.introspection` describes them. https://varlink.org
"""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

Answer = Callable[[msgspec.Struct], None]
"""Takes a method's answer: its result, or an `Error`. Called once per call, at once or later."""


class Error(msgspec.Struct, frozen=True):
    """An error; the class has its name, its parameters as fields, its description as docstring."""

    interface_name: ClassVar[str]
    """The name of its interface."""


class Method(msgspec.Struct, frozen=True):
    """A method; the class of its parameters has its name, and its description as docstring."""

    parameters: type[msgspec.Struct]
    result: type[msgspec.Struct]
    perform: Callable[[Any, Answer], None]
    """Takes an instance of ``parameters``."""


class Interface(msgspec.Struct, frozen=True):
    """An interface as one client may call it."""

    name: str
    description: str
    methods: tuple[Method, ...]
    errors: tuple[type[Error], ...]
