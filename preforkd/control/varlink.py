"""How a Varlink interface is declared: methods, parameters and errors are Structs.

From these calls are checked (`preforkd.control.dispatch`) and descriptions are written
(`preforkd.control.introspection`). https://varlink.org
"""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

Answer = Callable[[msgspec.Struct], None]
"""Takes a method's answer: its parameters, or an `Error`. Once for each call, at once or later."""


class Error(msgspec.Struct, frozen=True):
    """An error, named as its class; the fields are its parameters, the docstring its description."""

    interface_name: ClassVar[str]
    """The name of its interface."""


class Method(msgspec.Struct, frozen=True):
    """A method, named as the class of its parameters, of which the docstring is its description."""

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
