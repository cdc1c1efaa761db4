"""Text of others, made fit for a log and a terminal."""

import pytest

from preforkd.core.text import LINE_LIMIT, hide, masked, presentable, printable, printable_lines
from preforkd.errors import (
    DETAIL_LIMIT,
    Blame,
    ConfigurationError,
    Failure,
    Place,
    Problem,
    SystemFailure,
)


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


def test_a_setting_is_shown_with_its_place():
    """A child knows the setting, the master where it was written."""
    failure = Failure(Blame.CONFIGURATION, "gone", hint="h", setting="tls.certificate")
    shown = presentable(failure, place=Place("/etc/preforkd.yaml", 5, 16))
    assert shown == Failure(Blame.CONFIGURATION, "/etc/preforkd.yaml:5:16: gone", hint="h")
    assert presentable(failure).reason == "gone"


def test_a_failure_of_a_child_is_cut():
    """However long its texts are, a line in the log stays one."""
    failure = Failure(Blame.SYSTEM, "r" * 50_000, "d" * 500_000, "h" * 50_000, "s" * 50_000)
    shown = presentable(failure)
    assert (shown.reason, shown.hint, shown.setting) == ("r" * LINE_LIMIT, "h" * LINE_LIMIT, "")
    assert len(shown.detail) <= DETAIL_LIMIT + 2


def test_a_failure_of_a_child_is_fit_to_be_shown():
    """No escape for a terminal, one line for reason and hint, and no value of a credential."""
    text = "\x1b[2J no s3cr3t\nnext"
    shown = presentable(Failure(Blame.APPLICATION, text, text, text), ["s3cr3t"])
    assert shown.reason == shown.hint == r"\x1b[2J no (credential)\nnext"
    assert shown.detail == "\\x1b[2J no (credential)\nnext"
