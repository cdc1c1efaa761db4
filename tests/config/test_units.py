"""Durations, sizes and modes."""

import pytest
from hypothesis import given, strategies as st

from preforkd.config import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1min 30s", 90),
        ("1min30s", 90),
        ("500ms", 0.5),
        ("2h 3min", 7380),
        ("1.5h", 5400),
        ("7", 7),
        ("1 day", 86400),
    ],
)
def test_durations_as_systemd_writes_them(text, seconds):
    """systemd.time(7)."""
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1:30", "on", "-3s", "3x", "3 4", "1min 30", "s", "1_000"])
def test_invalid_durations(text):
    """YAML's sexagesimal number, words, signs and unknown units are refused."""
    with pytest.raises(ValueError, match=r"duration|unit|empty"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", ["2000", "2000 requests", " 2000requests ", "2000 request"])
def test_numbers_of_requests(text):
    """With and without the word."""
    assert units.parse_requests(text) == 2000


@pytest.mark.parametrize(
    "text", ["", "requests", "-1", "1.5 requests", "5 minutes", "2 requests 3"]
)
def test_invalid_numbers_of_requests(text):
    """The error shows what is expected."""
    with pytest.raises(ValueError, match="for example 2000 requests"):
        units.parse_requests(text)


@given(st.integers(min_value=0, max_value=10**7))
def test_a_formatted_duration_is_parsed_again(milliseconds):
    """The formatted text is parsed to the same value."""
    seconds = milliseconds / 1000
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_formatted_size_is_parsed_again(size):
    """The formatted text is parsed to the same value."""
    assert units.parse_size(units.format_size(size)) == size


def test_sizes():
    """Base 1024, with or without B or iB."""
    assert units.parse_size("256M") == 256 << 20
    assert units.parse_size("1.5K") == 1536
    assert units.parse_size("64 kiB") == 65536
    for text in ("", "-1", "1X", "M", "1e3"):
        with pytest.raises(ValueError, match="not a size"):
            units.parse_size(text)


def test_modes_are_octal_however_written():
    """0660, 660 and 0o660 are equal; 8 and 9 are refused."""
    assert {units.parse_mode(text) for text in ("0660", "660", "0o660")} == {0o660}
    assert units.format_mode(0o660) == "0660"
    with pytest.raises(ValueError, match="octal"):
        units.parse_mode("0689")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1min"),
        (61, "1min 1s"),
        (3599, "59min 59s"),
        (3600, "1h"),
        (86399, "23h 59min 59s"),
        (86400, "1d"),
        (90061, "1d 1h 1min 1s"),
        (0.5, "500ms"),
        (0.25, "250ms"),
        (0.0005, "500us"),
        (0.000001, "1us"),
        (1.5, "1.5s"),
    ],
)
def test_durations_are_written_in_the_largest_units(seconds, text):
    """Exactly where one unit ends and the next begins."""
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (1024, "1K"),
        (1536, "1536"),
        (1 << 20, "1M"),
        (1 << 40, "1T"),
    ],
)
def test_sizes_are_written_in_the_largest_unit_that_divides_them(size, text):
    """Nothing is rounded."""
    assert units.format_size(size) == text


def test_every_unit_of_time():
    """With each of its names; bare numbers are seconds, spaces around them are nothing."""
    names = {
        1e-6: "us",
        1e-3: "ms",
        1: "s sec second seconds",
        60: "m min minute minutes",
        3600: "h hr hour hours",
        86400: "d day days",
    }
    for seconds, words in names.items():
        for word in words.split():
            assert units.parse_duration(f" 2{word} ") == 2 * seconds
    for number, letter in enumerate("KMGT", 1):
        assert (
            units.parse_size(f"3{letter}")
            == units.parse_size(f"3 {letter.lower()}ib")
            == 3 << (10 * number)
        )
    assert units.parse_size("3") == units.parse_size("3B") == 3


def test_how_many_digits_are_read():
    """Eighteen of a number of requests, four of a mode."""
    assert units.parse_requests("9" * 18) == 10**18 - 1
    with pytest.raises(ValueError, match="number of requests"):
        units.parse_requests("9" * 19)
    assert units.parse_mode("07777") == 0o7777
    assert units.format_mode(7) == "0007"
    with pytest.raises(ValueError, match="octal"):
        units.parse_mode("077777")


def test_the_words_for_true_and_false():
    """Those of YAML 1.1 and of systemd, and no numbers."""
    assert [word for word, value in units.FLAGS.items() if value] == ["true", "yes", "on"]
    assert [word for word, value in units.FLAGS.items() if not value] == ["false", "no", "off"]
