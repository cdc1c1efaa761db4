"""Text of others, made fit for a log and a terminal."""

import pytest

from preforkd.core.text import hide, masked, printable, printable_lines
from preforkd.errors import ConfigurationError, Place, Problem, SystemFailure


@pytest.mark.parametrize(
    ("text", "line", "lines"),
    [
        ("plain, ä, 漢, 👩\u200d🔬", None, None),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("\x1b[1;31mred\x1b[0m", "red", "red"),
        ("\x1b[\x1b[1mm", r"\x1b[m", r"\x1b[m"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("a\r\nb\tc\rd", r"a\r\nb\tc\rd", "a\nb\tc\\rd"),
        (
            "\u202eevil\u2066\u2028\x85",
            r"\u202eevil\u2066\u2028\x85",
            r"\u202eevil\u2066\u2028\x85",
        ),
        ("\udcff", r"\udcff", r"\udcff"),
    ],
)
def test_what_moves_a_terminal_is_written_out(text, line, lines):
    """Escapes, C1 controls and bidirectional overrides; colours go, letters of all scripts stay."""
    assert printable(text) == (text if line is None else line)
    assert printable_lines(text) == (text if lines is None else lines)


def test_secrets_are_masked_as_they_are_and_quoted():
    """The longest first, only where they stand alone, and never for an empty one."""
    secrets = ["key", "a key", "two\nlines", ""]
    text = f"a key, keys, monkey, 'key' and {'two' + chr(10) + 'lines'!r}"
    assert masked(text, secrets) == "(credential), keys, monkey, '(credential)' and '(credential)'"


def test_an_error_is_shown_without_secrets():
    """In message, hint and detail; for a configuration in each of its problems."""
    error = SystemFailure("no geheim", hint="a geheim", detail="the geheim")
    hide(error, ["geheim"])
    assert error.report() == "no (credential)\nthe (credential)\nhint: a (credential)"
    wrong = ConfigurationError([Problem(Place("f", 1, 1), "app", "no geheim", "a geheim")] * 2)
    hide(wrong, ["geheim"])
    assert "geheim" not in wrong.report() + str(wrong.problems)
