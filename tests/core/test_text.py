"""Text of others, made fit for a log and a terminal."""

import pytest

from preforkd.core.text import printable, printable_lines


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
