"""A YAML file as a tree of texts with their places, before the reader interprets them.

Scalars are kept as they were written, so that the type of a setting decides their meaning: ``on`` is a string
where a string is expected, ``0600`` is octal where permissions are, and ``1:30`` is not a sexagesimal number.
"""

from collections.abc import Iterator

import yaml
from msgspec import Struct

from preforkd.errors import ConfigurationError, Place, Problem

SIZE_LIMIT = 1 << 20
"""Bytes of a document."""
_NODE_LIMIT = 20_000
"""Nodes after aliases are expanded: a few lines of nested aliases can stand for millions."""
_DEPTH_LIMIT = 32

_NULLS = {"", "~", "null", "Null", "NULL"}
_ALLOWED_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "map", "seq", "value")
}


class Scalar(Struct, frozen=True):
    """One value as it was written; ``quoted``: in quotes, or as a block."""

    text: str
    quoted: bool
    place: Place

    @property
    def empty(self) -> bool:
        """Whether there is no value: nothing, ``~`` or ``null``."""
        return not self.quoted and self.text in _NULLS


class Sequence(Struct, frozen=True):
    """A list of nodes."""

    items: tuple["Node", ...]
    place: Place


class Entry(Struct, frozen=True):
    """A key with its value."""

    key: Scalar
    value: "Node"


class Mapping(Struct, frozen=True):
    """Keys with values, in the order of the file; a duplicate key is a problem, and not in it."""

    entries: tuple[Entry, ...]
    place: Place


Node = Scalar | Sequence | Mapping


def read_document(data: bytes, source: str) -> tuple[Mapping | None, list[Problem]]:
    """Return the top-level mapping of a YAML text (None: it is empty) and the problems found.

    Raises ConfigurationError if the text cannot be parsed.
    """
    text = _decode(data, source)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError([_syntax_problem(error, text, source)]) from error
    except yaml.YAMLError as error:
        raise ConfigurationError([_unreadable(error, text, source)]) from error
    except RecursionError as error:
        raise ConfigurationError([Problem(Place(source), "", "nested too deeply")]) from error
    if root is None:
        return None, []
    builder = _Builder(source)
    node = builder.build(root, 0)
    if isinstance(node, Scalar) and node.empty:
        return None, builder.problems
    if not isinstance(node, Mapping):
        problem = Problem(node.place, "", "expected a mapping of settings", "write key: value")
        raise ConfigurationError([problem])
    return node, builder.problems


def _decode(data: bytes, source: str) -> str:
    if len(data) > SIZE_LIMIT:
        raise ConfigurationError(
            [Problem(Place(source), "", f"the file is larger than {SIZE_LIMIT >> 20} MiB")]
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem(Place(source, line, column), "", "not UTF-8")
        raise ConfigurationError([problem]) from error


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, source: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
    message = error.problem or error.context or "not YAML"
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    hint = ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        message, hint = "a tab indents this line", "indent with spaces"
    elif "another document" in message:
        hint = "a file contains one document: remove the ---"
    elif "mapping values are not allowed" in message:
        hint = "put quotes around a value that contains ': '"
    return Problem(place, "", f"not YAML: {message}", hint)


def _unreadable(error: yaml.YAMLError, text: str, source: str) -> Problem:
    position = getattr(error, "position", None)
    if position is None:
        return Problem(Place(source), "", f"not YAML: {error}")
    before = text[:position]
    place = Place(source, before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
    return Problem(place, "", "a character that YAML does not allow")


class _Loader(yaml.SafeLoader):
    # The limit is checked while parsing: a megabyte of small values would take half a minute.
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.count += 1
        if self.count > _NODE_LIMIT:
            raise yaml.MarkedYAMLError(
                problem=f"more than {_NODE_LIMIT} values", problem_mark=self.get_mark()
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


class _Builder:
    def __init__(self, source: str) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._count = 0

    def build(self, node: yaml.Node, depth: int) -> Node:
        place = self._place(node)
        self._count += 1
        if self._count > _NODE_LIMIT or depth > _DEPTH_LIMIT:
            raise ConfigurationError(
                [Problem(place, "", "too many values by aliases, or nested too deeply")]
            )
        if node.tag not in _ALLOWED_TAGS:
            self.problems.append(
                Problem(place, "", f"the tag {node.tag} is not allowed", "write plain values")
            )
        if isinstance(node, yaml.ScalarNode):
            return Scalar(self._text(node, place), node.style is not None, place)
        if isinstance(node, yaml.SequenceNode):
            return Sequence(tuple(self.build(item, depth + 1) for item in node.value), place)
        return Mapping(tuple(self._entries(node, depth)), place)

    def _entries(self, node: yaml.Node, depth: int) -> Iterator[Entry]:
        seen: dict[str, Place] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(place, "", "a key must be a single word"))
                continue
            if key_node.tag == "tag:yaml.org,2002:merge":
                hint = "write the keys out"
                self.problems.append(Problem(place, "", "merge keys (<<) are not supported", hint))
                continue
            key = self._text(key_node, place)
            if key in seen:
                self.problems.append(
                    Problem(place, key, f"duplicate key; first at line {seen[key].line}")
                )
                continue
            seen[key] = place
            name = Scalar(key, key_node.style is not None, place)
            yield Entry(name, self.build(value_node, depth + 1))

    def _text(self, node: yaml.ScalarNode, place: Place) -> str:
        text: str = node.value
        if text.isascii() or text.encode("utf-8", "replace").decode() == text:
            return text
        # From an escape such as "\ud800".
        problem = "an unpaired surrogate is not a character, and cannot be encoded as UTF-8"
        self.problems.append(Problem(place, "", problem))
        return text.encode("utf-8", "backslashreplace").decode()

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._source, node.start_mark.line + 1, node.start_mark.column + 1)
