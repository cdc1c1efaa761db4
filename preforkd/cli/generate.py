"""What follows from the declarations: the sample file, the JSON Schema, manuals, the catalog, tables of guides.

``python -m preforkd.cli.generate`` writes it; a test compares.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preforkd.config.fields import Field, Form, fields_of, leaves
from preforkd.config.settings import ListenSettings, OnReload, Settings
from preforkd.errors import EXIT_STATUSES, ExitStatus
from preforkd.logs import catalog
from preforkd.supervisor.signals import SIGNALS

_WIDTH = 96
_ROOT = Path(__file__).resolve().parent.parent.parent
_ON_RELOAD = {
    OnReload.LIVE: "a reload applies it in place",
    OnReload.GENERATION: "a reload starts new workers",
    OnReload.RESTART: "a change needs a restart",
}
_DURATION = "^\\s*([0-9]+(\\.[0-9]+)?\\s*[a-z]*\\s*)+$"
_REQUESTS = "^[0-9]+(\\s*requests?)?$"
_SIZE = "^[0-9]+(\\.[0-9]+)?\\s*([KMGTkmgt]?)(i?B)?$"

_HEAD = """\
# /etc/preforkd.yaml: the configuration of preforkd.
#
# Every setting is listed as a comment with its default; all are optional.
# preforkd check reports the errors of a file, preforkd config shows the settings in force and
# their origins, systemctl reload preforkd applies the file. Durations: 30s, 1min 30s. Sizes, to
# the base of 1024: 64K, 256M.
"""


# --- the sample ----------------------------------------------------------------------------------


def sample() -> str:
    """Return etc/preforkd.yaml: settings as comments below their sections, with help and defaults."""
    return "\n".join([_HEAD, *_sample_lines(fields_of(Settings), "")]) + "\n"


def _sample_lines(fields: tuple[Field, ...], indent: str) -> Iterator[str]:
    for field in fields:
        yield from _comment(field.help, indent)
        if field.struct is not None and field.form is Form.SECTION:
            yield f"{indent}{field.name}:"
            yield from _sample_lines(fields_of(field.struct, field.path + "."), indent + "  ")
        else:
            if field.form is not Form.LISTEN:
                yield from _comment(_facts(field), indent)
            yield f"{indent}#{field.name}: {_default(field)}"
        yield ""


def _comment(text: str, indent: str) -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False
    )


def _facts(field: Field) -> str:
    return f"({field.allowed()}; {_ON_RELOAD[field.on_reload]})"


def _default(field: Field) -> str:
    if field.form is Form.LISTEN:
        return ", ".join(listen.address for listen in field.default)
    if field.form is Form.NAMES:
        return "{}"
    return field.write(field.default) or '""'


def uncommented(text: str) -> str:
    """Return the sample with each setting uncommented, as an administrator would edit it."""
    lines = []
    for line in text.split("\n"):
        bare = line.lstrip()
        setting = bare.startswith("#") and not bare.startswith(("# ", "#\n")) and bare != "#"
        lines.append(line.replace("#", "", 1) if setting else line)
    return "\n".join(lines)


# --- the schema ----------------------------------------------------------------------------------


def schema() -> str:
    """Return the JSON Schema of the file, for editors."""
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "preforkd.yaml",
        "description": "The configuration of preforkd.",
        **_object(fields_of(Settings)),
    }
    return json.dumps(whole, indent=2) + "\n"


def _object(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {field.name: _property(field) for field in fields},
    }


def _property(field: Field) -> dict[str, Any]:
    about: dict[str, Any] = {"description": field.help}
    if field.struct is not None and field.form is Form.SECTION:
        inner = fields_of(field.struct, field.path + ".")
        if field.short:
            (one,) = (_property(each) for each in inner if each.name == field.short)
            return {**about, "anyOf": [one, _object(inner)]}
        return {**about, **_object(inner)}
    if field.form is Form.LIST:
        text = {"type": "string"}
        return {**about, "anyOf": [text, {"type": "array", "items": text}]}
    if field.form is Form.LISTEN:
        one = {"anyOf": [{"type": "string"}, _object(fields_of(ListenSettings, "listen."))]}
        return {**about, "anyOf": [*one["anyOf"], {"type": "array", "items": one}]}
    if field.form is Form.NAMES:
        value = {"type": ["string", "number", "boolean"]}
        return {**about, "type": ["object", "null"], "additionalProperties": value}
    flag = field.form is Form.FLAG
    about["default"] = field.default if flag else field.write(field.default)
    return {**about, **_scalar(field)}


def _scalar(field: Field) -> dict[str, Any]:
    if field.form is Form.CHOICE:
        # Editors take a bare 1.2 for a number.
        numbers = [float(choice) for choice in field.choices if re.fullmatch(r"\d+\.\d+", choice)]
        return {"enum": [*field.choices, *numbers]}
    one = _TYPES.get(field.form, {"type": ["string", "null"]})
    if field.form is Form.INTEGER:
        one = {"type": "integer", "minimum": field.ge, "maximum": field.le}
    return {"anyOf": [one, {"enum": list(field.choices)}]} if field.choices else one


_TYPES: dict[Form, dict[str, Any]] = {
    Form.FLAG: {"type": "boolean"},
    Form.DURATION: {"type": ["string", "number"], "pattern": _DURATION},
    Form.SIZE: {"type": ["string", "integer"], "pattern": _SIZE},
    Form.REQUESTS: {"type": ["string", "integer"], "pattern": _REQUESTS},
    Form.MODE: {"type": ["string", "integer"], "pattern": "^0?o?[0-7]{1,4}$"},
}


# --- the man page --------------------------------------------------------------------------------

_MAN_HEAD = """\
.TH PREFORKD.YAML 5 "2026-11-23" "preforkd 0.1" "File formats"
.SH NAME
preforkd.yaml \\- configuration of preforkd
.SH SYNOPSIS
.I /etc/preforkd.yaml
.br
.I /etc/preforkd/NAME.yaml
.SH DESCRIPTION
A YAML file. Every setting is optional, and so is the file.
.B preforkd check
reports all of its errors,
.B preforkctl reload
applies it. Durations are written as in
.BR systemd.time (7):
30s, 1min 30s; sizes as 64K or 256M, to the base of 1024. The type of a setting decides how its value is
read, not YAML: on is a text where a text is expected, and 0600 is octal where permissions are.
.SH SETTINGS
"""
_MAN_TAIL = """\
.SH SEE ALSO
.BR preforkd (8),
.BR preforkctl (1)
"""


def manual() -> str:
    """Return preforkd.yaml(5)."""
    fields = [*leaves(), *fields_of(ListenSettings, "listen[].")]
    return _MAN_HEAD + "".join(_man_entry(field) for field in fields) + _MAN_TAIL


def _man_entry(field: Field) -> str:
    facts = f"Value: {field.allowed()}. Default: {_default(field)}."
    change = f"{_ON_RELOAD[field.on_reload].capitalize()}."
    return f".TP\n.B {_troff(field.path)}\n{_troff(field.help)}\n.br\n{_troff(facts)} {change}\n"


def _troff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


# --- the journal's catalog -----------------------------------------------------------------------


def journal_catalog() -> str:
    """Return systemd/preforkd.catalog (https://systemd.io/CATALOG)."""
    return "\n".join(_catalog_entry(entry) for entry in catalog.ENTRIES)


def _catalog_entry(entry: catalog.Entry) -> str:
    text = textwrap.fill(entry.text, 76, break_on_hyphens=False, break_long_words=False)
    head = f"-- {entry.id}\nSubject: {entry.subject}\nDefined-By: preforkd\n"
    return f"{head}Documentation: man:preforkd(8)\n\n{text}\n"


# --- sections of guides and manuals ----------------------------------------------------------------

_MARKDOWN = "<!-- {} -->"
_TROFF = '.\\" {}'


def _with_section(text: str, mark: str, name: str, section: str) -> str:
    """Return a text with what stands between its two marks of this name replaced. Raises ValueError."""
    begin, end = (mark.format(f"{slash}{name}") + "\n" for slash in ("", "/"))
    before, begins, rest = text.partition(begin)
    _, ends, after = rest.partition(end)
    if not (begins and ends):
        raise ValueError(f"there is no section {name}, or it has no end")
    return before + begin + section + end + after


def operations(text: str) -> str:
    """Return the operations guide with its tables of signals and exit statuses brought up to date."""
    rows = [(", ".join(number.name for number in each.numbers), each.meaning) for each in SIGNALS]
    text = _with_section(text, _MARKDOWN, "signals", _table(("Signal", "To the master"), rows))
    statuses = [
        (str(int(status)), meaning.preforkd, meaning.preforkctl)
        for status, meaning in EXIT_STATUSES.items()
    ]
    titles = ("Status", "`preforkd`", "`preforkctl`")
    return _with_section(text, _MARKDOWN, "exit statuses", _table(titles, statuses))


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (titles, *rows)]
    return "\n".join(["", lines[0], "|" + "---|" * len(titles), *lines[1:], "", ""])


def manual_of_preforkd(text: str) -> str:
    """Return preforkd(8) with its lists of signals and exit statuses brought up to date."""
    signals = "".join(
        _man_item([number.name for number in each.numbers], each.meaning) for each in SIGNALS
    )
    text = _with_section(text, _TROFF, "signals", signals)
    statuses = [(status, meaning.preforkd) for status, meaning in EXIT_STATUSES.items()]
    return _with_section(text, _TROFF, "exit statuses", _man_statuses(statuses))


def manual_of_preforkctl(text: str) -> str:
    """Return preforkctl(1) with its list of exit statuses brought up to date."""
    statuses = [(status, meaning.preforkctl) for status, meaning in EXIT_STATUSES.items()]
    return _with_section(text, _TROFF, "exit statuses", _man_statuses(statuses))


def _man_statuses(statuses: Sequence[tuple[ExitStatus, str]]) -> str:
    return "".join(_man_item([str(int(status))], text) for status, text in statuses if text)


def _man_item(names: Sequence[str], text: str) -> str:
    head = ".B " + names[0] if len(names) == 1 else ".BR " + ' ", " '.join(names)
    return f".TP\n{head}\n{_troff(text)}\n"


# --- the files -----------------------------------------------------------------------------------


def derived() -> dict[str, str]:
    """Return every file that derives from declarations, as it is to be: its path, and its text."""
    sections = {
        "packaging/doc/operations.md": operations,
        "packaging/man/preforkd.8": manual_of_preforkd,
        "packaging/man/preforkctl.1": manual_of_preforkctl,
    }
    return {
        "etc/preforkd.yaml": sample(),
        "etc/preforkd.schema.json": schema(),
        "systemd/preforkd.catalog": journal_catalog(),
        "packaging/man/preforkd.yaml.5": manual(),
        **{path: update((_ROOT / path).read_text()) for path, update in sections.items()},
    }


def main() -> None:
    """Write the derived files."""
    for path, text in derived().items():
        (_ROOT / path).write_text(text)


if __name__ == "__main__":
    main()
