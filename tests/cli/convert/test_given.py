"""One option of another server."""

import pytest

from preforkd.cli.convert.given import Given, failed, words
from preforkd.errors import ConfigurationError, Place

PLACE = Place("f", 3, 1)


@pytest.mark.parametrize(
    ("value", "text", "flag", "items"),
    [
        (None, "", False, []),
        (True, "True", True, ["True"]),
        (False, "False", False, ["False"]),
        (" a, b,", "a, b,", True, ["a", "b"]),
        (["a ", 1], "['a ', 1]", True, ["a", "1"]),
        (0, "0", False, ["0"]),
        ("off", "off", False, ["off"]),
    ],
)
def test_a_value_as_text_flag_and_list(value, text, flag, items):
    """As the servers read it: from Python, an INI file or a command line."""
    given = Given(value, PLACE)
    assert (given.text, given.flag, given.items) == (text, flag, items)


@pytest.mark.parametrize(("value", "number"), [(4, 4), ("4", 4), ("4.0", 4), (2.9, 2)])
def test_a_number(value, number):
    """Fractions are cut off, as gunicorn's int() does."""
    assert Given(value, PLACE).number() == number


@pytest.mark.parametrize("value", ["four", "", None, "inf", "nan", [1]])
def test_what_is_no_number_is_refused(value):
    """With the option's place."""
    with pytest.raises(ConfigurationError) as caught:
        Given(value, PLACE).number()
    assert caught.value.problems[0].place == PLACE


def test_words_of_a_command():
    """Continued lines, quotes and comments are the shell's."""
    assert words("a \\\n 'b c' # d", PLACE) == ["a", "b c"]
    with pytest.raises(ConfigurationError, match="No closing quotation"):
        words("a 'b", PLACE)
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        words("a \udcff", PLACE)
    assert str(failed(PLACE, "m", "h").problems[0]).startswith("f:3:1: m")
