"""An interface's description is made from what declares it."""

from typing import Any

import msgspec
import pytest

from preforkd.control.interface import Manager
from preforkd.control.introspection import description
from preforkd.control.varlink import Error, Interface, Method


class Inner(msgspec.Struct):
    """Inside."""

    name: str
    share: float


class Outer(msgspec.Struct):
    """Around it."""

    inner: list[Inner]
    last: Inner | None
    on: bool


class Look(msgspec.Struct):
    """Look at it.

    deep: inside, too.
    """

    deep: bool | None = None


class Seen(msgspec.Struct):
    """What was seen."""

    outer: Outer


class Blind(Error, frozen=True):
    """Nothing is seen."""

    interface_name = "test.Looks"
    reason: str


def test_types_methods_and_errors_are_described():
    """Inner types come before what has them, each once; comments are the docstrings."""
    interface = Interface("test.Looks", "Looks.", (Method(Look, Seen, print),), (Blind,))
    assert description(interface) == (
        "# Looks.\n"
        "interface test.Looks\n"
        "\n"
        "# Inside.\n"
        "type Inner (name: string, share: float)\n"
        "\n"
        "# Around it.\n"
        "type Outer (inner: []Inner, last: ?Inner, on: bool)\n"
        "\n"
        "# Look at it.\n"
        "#\n"
        "# deep: inside, too.\n"
        "method Look(deep: ?bool) -> (outer: Outer)\n"
        "\n"
        "# Nothing is seen.\n"
        "error Blind (reason: string)\n"
    )


def test_what_has_no_type_there_is_refused():
    """Rather than described wrongly."""

    class Odd(msgspec.Struct):
        what: Any

    with pytest.raises(TypeError, match="Any"):
        description(Interface("test.Odd", "", (Method(Odd, Seen, print),), ()))


def test_the_managers_interface():
    """Every method and error of ours is in its description, with its parameters."""
    interface = Manager(None, None, "").interface
    text = description(interface)
    for method in interface.methods:
        assert f"\nmethod {method.parameters.__name__}(" in text
    for error in interface.errors:
        assert f"\nerror {error.__name__} (" in text
    assert "method Scale(size: ?int, by: ?int) -> (size: int)\n" in text
    assert "last_reload: ?ReloadStatus, memory: ?MemoryStatus)" in text
