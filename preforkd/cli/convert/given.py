"""One option of another server, as it was written."""

import shlex
from typing import Any

from msgspec import Struct

from preforkd.errors import ConfigurationError, Place, Problem


class Given(Struct, frozen=True):
    """An option's value, and its place in the source.

    ``computed``: the expression, if the value is known only when the source is executed; ``value`` is then None.
    ``variables``: the environment variables whose defaults are in the value.
    """

    value: Any
    place: Place
    computed: str = ""
    variables: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The value as a text without surrounding space; empty: it is not set."""
        return "" if self.value is None else str(self.value).strip()

    @property
    def flag(self) -> bool:
        """Whether the option is switched on."""
        return self.text.lower() not in {"", "0", "false", "no", "off", "n"}

    @property
    def items(self) -> list[str]:
        """The value as a list: that of a list, or the parts of a text between commas."""
        if isinstance(self.value, list | tuple | set):
            return [str(item).strip() for item in self.value]
        return [part.strip() for part in self.text.split(",") if part.strip()]

    def number(self) -> int:
        """Return the value as a whole number. Raises ConfigurationError."""
        try:
            return int(float(self.text))
        except (ValueError, OverflowError):
            raise failed(self.place, f"{self.text!r} is not a number") from None


Options = dict[str, Given]
"""The options of a source by name."""


def failed(place: Place, message: str, hint: str = "") -> ConfigurationError:
    """Return the error for a source that cannot be converted."""
    return ConfigurationError([Problem(place, "", message, hint)])


def words(text: str, place: Place) -> list[str]:
    """Return the words of a shell command, with its continued lines. Raises ConfigurationError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise failed(place, "not UTF-8") from None
    try:
        return shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise failed(place, f"not a command: {error}") from None
