"""YAML as text with places."""

import pytest
from hypothesis import given, strategies as st

from preforkd.config.document import Mapping, Scalar, read_document
from preforkd.errors import ConfigurationError, Place


def problems_of(data):
    """Return the problems of a text as lines."""
    try:
        _, problems = read_document(data.encode() if isinstance(data, str) else data, "f")
    except ConfigurationError as error:
        problems = error.problems
    return [str(problem) for problem in problems]


def test_scalars_stay_as_they_were_written():
    """YAML's guesses (bool, octal, sexagesimal, date) do not happen."""
    document, _ = read_document(b"a: on\nb: 0600\nc: 1:30\nd: 2026-01-01\ne: '~'\nf: ~\n", "f")
    values = {entry.key.text: entry.value for entry in document.entries}
    assert {name: value.text for name, value in values.items()} == {
        "a": "on",
        "b": "0600",
        "c": "1:30",
        "d": "2026-01-01",
        "e": "~",
        "f": "~",
    }
    assert values["f"].empty
    assert not values["e"].empty
    assert values["b"].place == Place("f", 2, 4)


def test_an_empty_file_is_all_defaults():
    """An empty file, comments, or a null."""
    for data in (b"", b"# nothing\n", b"~\n", b"\xef\xbb\xbf", b"---\n"):
        assert read_document(data, "f") == (None, [])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a: 1\na: 2\n", "f:2:1: a: duplicate key; first at line 1"),
        ("a: [1\n", "f:2:1: not YAML"),
        ("a:\n\tb: 1\n", "f:2:1: not YAML: a tab indents this line"),
        ("a: b: c\n", "f:1:5: not YAML: mapping values are not allowed here .put quotes"),
        ("- 1\n", "f:1:1: expected a mapping of settings"),
        ("just words\n", "f:1:1: expected a mapping of settings"),
        ("a: 1\n---\nb: 2\n", "a file contains one document"),
        ("a: !!python/object:os.system x\n", "f:1:4: the tag .* is not allowed"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n", "f:3:3: merge keys"),
        ("? [a]\n: 1\n", "a key must be a single word"),
        (b"a: \xff\n", "f:1:4: not UTF-8"),
        ('a: "\\udce9"\n', "f:1:4: an unpaired surrogate is not a character"),
        ('"\\ud83d": 1\n', "f:1:1: an unpaired surrogate is not a character"),
        ("a: \x01\n", "f:1:4: a character that YAML does not allow"),
        ("a: &a [*a]\n", "too many values by aliases"),
        ("a: *nowhere\n", "f:1:4: not YAML: found undefined alias"),
        ("x" * (1 << 20) + "y", "larger than 1 MiB"),
    ],
)
def test_each_problem_has_its_place(data, words):
    """File, line, column and a reason for each."""
    import re

    lines = problems_of(data)
    assert any(re.search(words, line) for line in lines), lines


def test_nested_aliases_are_not_expanded_without_limit():
    """Nine levels of nine aliases are refused at once, not expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "too many values by aliases" in problems_of("\n".join(lines))[0]


def test_few_aliases_are_fine():
    """An alias is repeated where it stands."""
    document, problems = read_document(b"a: &x hello\nb: *x\n", "f")
    assert isinstance(document, Mapping)
    assert not problems
    value = document.entries[1].value
    assert isinstance(value, Scalar)
    assert value.text == "hello"


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_anything_is_read_or_refused(data):
    """No input raises anything but ConfigurationError."""
    problems_of(data)


def test_too_many_values_are_refused_while_parsing():
    """A megabyte of small values would take the parser half a minute."""
    text = "app: {" + ", ".join(f"a{number}: 1" for number in range(10_001)) + "}"
    assert "more than 20000 values" in problems_of(text)[0]


def test_the_largest_file():
    """1 MiB is read, a byte more is refused."""
    assert read_document(b"#" * (1 << 20), "f") == (None, [])
    assert "larger than 1 MiB" in problems_of(b"#" * (1 << 20) + b"#")[0]


@pytest.mark.parametrize(("keys", "fits"), [(9999, True), (10_000, False)])
def test_the_most_values_that_are_parsed(keys, fits):
    """20,000 with the mapping itself: of that many keys with values, and one more."""
    text = "\n".join(f"k{number}: 1" for number in range(keys))
    problems = problems_of(text)
    assert bool(problems) is not fits
    assert all(problem.startswith("f:10000:") for problem in problems)


@pytest.mark.parametrize(("others", "fits"), [(258, True), (259, False)])
def test_the_most_values_with_aliases_expanded(others, fits):
    """20,000 here as well: a list of 140 that is there 140 times, three more values, and others."""
    items = ", ".join("x" * 140)
    repeated = ", ".join(["*a"] * 139 + ["x"] * others)
    problems = problems_of(f"a: [&a [{items}], {repeated}]")
    assert bool(problems) is not fits


@pytest.mark.parametrize(("depth", "fits"), [(32, True), (33, False)])
def test_the_deepest_nesting(depth, fits):
    """32 lists in each other under a key; a line names the one that is too deep."""
    problems = problems_of("a: " + "[" * depth + "]" * depth)
    assert bool(problems) is not fits
    if problems:
        assert problems[0].startswith("f:1:")
        assert "too many values by aliases, or nested" in problems[0]


def test_a_quoted_scalar_is_a_text():
    """An empty one, or the word null, is a value; the same without quotes is none."""
    document, _ = read_document(
        b"a: ''\nb: 'null'\nc: Null\nd:\n'e': |\n  x\nf: NULL\ng: null\nh: ~\n", "f"
    )
    values = [entry.value for entry in document.entries]
    assert [value.empty for value in values] == [False, False, True, True, False, True, True, True]
    assert [value.quoted for value in values] == [
        True,
        True,
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert [entry.key.quoted for entry in document.entries] == [False] * 4 + [True] + [False] * 3


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a: 1\na: 2\nb: 3\n", ["a", "b"]),
        ("[x]: 1\nb: 3\n", ["b"]),
        ("x: &x {a: 1}\n<<: *x\nb: 3\n", ["x", "b"]),
    ],
)
def test_an_invalid_key_is_left_out(text, kept):
    """With one problem; the others are read, so that all problems come at once."""
    document, problems = read_document(text.encode(), "f")
    assert [entry.key.text for entry in document.entries] == kept
    assert len(problems) == 1


def test_letters_outside_ascii_are_kept():
    """Half of a surrogate pair is replaced by its escape, so that it can be shown."""
    document, problems = read_document("a: caf\u00e9 \U0001f600\n".encode(), "f")
    assert document.entries[0].value.text == "caf\u00e9 \U0001f600"
    assert problems == []
    document, problems = read_document(b'a: "x\\ud800"\n', "f")
    assert document.entries[0].value.text == "x\\ud800"
    assert len(problems) == 1


def test_a_line_that_is_not_utf8_is_placed_in_bytes():
    """In a later line, behind other characters."""
    assert problems_of(b"a: 1\nbc: \xc3\xa9\xff\n")[0].startswith("f:2:7: not UTF-8")


def test_a_character_that_yaml_does_not_allow_is_placed():
    """In a later line, behind other characters."""
    assert problems_of("a: 1\nbc: \x07\n")[0].startswith("f:2:5: a character that YAML")
