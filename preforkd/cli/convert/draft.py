"""What a conversion has found: settings, lines for the unit, and notes; written as YAML and as a drop-in."""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from preforkd.config.document import read_document
from preforkd.config.fields import leaves
from preforkd.config.reader import Reader
from preforkd.config.settings import Settings
from preforkd.core.text import printable
from preforkd.errors import Place, Problem

_WIDTH = 96
_PLAIN = re.compile(r"[A-Za-z0-9/_.][A-Za-z0-9/_.:@+()-]*(?<!:)")
_UNREADABLE = re.compile(
    "[^ -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""Characters that YAML does not allow, or takes for the end of a line. YAML 1.1, sections 5.1 and 5.4"""
_NULLS = {"null", "Null", "NULL"}
_ITEM = re.compile(r"listen\[(\d+)\](?:\.(\w+))?")


class Draft:
    """Settings by dotted path, their comments, notes on options without an equal, and lines of [Service].

    ``listen``: the entries of the setting listen. ``needless``: options for which nothing is to be done.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.values: dict[str, Any] = {}
        self.listen: list[dict[str, Any]] = []
        self.comments: dict[str, str] = {}
        self.notes: list[tuple[str, str]] = []
        self.needless: list[str] = []
        self.unit: dict[str, str] = {}

    def set(self, path: str, value: Any, comment: str = "") -> None:
        """Set a setting, with a comment above it."""
        self.values[path] = value
        if comment:
            self.comments[path] = comment

    def note(self, option: str, text: str) -> None:
        """Add what to do instead of an option, once."""
        if (option, text) not in self.notes:
            self.notes.append((option, text))

    # --- writing ---------------------------------------------------------------------------------

    def write_settings(self) -> str:
        """Return a preforkd.yaml that is valid: what its reader refuses has become a note."""
        while problems := self._problems(text := self._yaml()):
            self._take_out(problems[0])
        return text

    def write_unit(self) -> str:
        """Return a drop-in of preforkd.service."""
        lines = [
            f"# Converted from {printable(self.source)}: for systemctl edit preforkd.service",
            "[Service]",
            *(f"{name}={printable(value)}" for name, value in self.unit.items()),
        ]
        if not self.unit:
            lines.append("# Nothing to set: the unit's own values serve.")
        return "\n".join(lines) + "\n"

    def _yaml(self) -> str:
        values = dict(self.values)
        if self.listen:
            short = [_short(entry) for entry in self.listen]
            values["listen"] = short[0] if len(short) == 1 and isinstance(short[0], str) else short
        tree: dict[str, Any] = {}
        for path in [field.path for field in leaves() if field.path in values]:
            *sections, name = path.split(".")
            inner = tree
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[name] = values[path]
        head = (
            f"Converted from {printable(self.source)}. Read the comments, then run preforkd check."
        )
        lines = [*_comment(head, ""), "", *self._lines(tree, "", ""), *self._remarks()]
        return "\n".join(lines) + "\n"

    def _lines(self, tree: dict[str, Any], prefix: str, indent: str) -> Iterator[str]:
        for name, value in tree.items():
            path = prefix + name
            yield from _comment(self.comments.get(path, ""), indent)
            section = isinstance(value, dict) and path not in self.values
            if section:
                yield f"{indent}{name}:"
                yield from self._lines(value, path + ".", indent + "  ")
            elif isinstance(value, dict):
                yield f"{indent}{name}:"
                yield from (f"{indent}  {key}: {_scalar(each)}" for key, each in value.items())
            else:
                yield f"{indent}{name}: {_value(value)}"

    def _remarks(self) -> Iterator[str]:
        if self.notes:
            yield "\n# What has no equal here, or needs a decision:"
            for option, text in self.notes:
                yield from _comment(f"- {option}: {text}", "", "  ")
        if self.needless:
            yield ""
            yield from _comment(f"Not needed: {', '.join(self.needless)}.", "")

    # --- checking --------------------------------------------------------------------------------

    @staticmethod
    def _problems(text: str) -> list[Problem]:
        document, problems = read_document(text.encode(), "the conversion")
        reader = Reader()
        settings = reader.settings(document) if document else Settings()
        reader.check_consistency(settings)
        return problems + reader.problems

    def _take_out(self, problem: Problem) -> None:
        path = problem.setting
        if (item := _ITEM.match(path)) is not None:
            entry = self.listen[int(item[1])]
            value = entry.pop(item[2] or "address", "")
            self.listen = [each for each in self.listen if each.get("address")]
        else:
            whole = next(known for known in self.values if f"{path}.".startswith(f"{known}."))
            value = self.values.pop(whole)
        hint = f" ({problem.hint})" if problem.hint else ""
        self.note(path, f"{_value(value)} is not possible: {problem.message}{hint}")


def variables(names: tuple[str, ...]) -> str:
    """Return a comment on a value that came from variables of the environment; empty: there are none."""
    named = " and ".join(f"${name}" for name in names)
    return f"the default of {named}: the environment does not change it here" if names else ""


def place_of(name: str) -> Place:
    """Return the place of an option of a command line."""
    return Place(name)


def _short(entry: dict[str, Any]) -> Any:
    return entry["address"] if list(entry) == ["address"] else entry


def _comment(text: str, indent: str, more: str = "") -> list[str]:
    return textwrap.wrap(
        printable(text),
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# {more}",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{name}: {_scalar(each)}" for name, each in value.items())
        return f"{{{inner}}}"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if _PLAIN.fullmatch(text) and text not in _NULLS:
        return text
    return _UNREADABLE.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: "re.Match[str]") -> str:
    return f"\\u{ord(found[0]):04x}"
