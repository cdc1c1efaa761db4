"""From a document to `Settings`: all problems are collected, each with its place.

The reader names no setting except ``listen`` and those whose texts have a grammar (`_GRAMMARS`); everything
else follows from the declarations.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping as MappingOf
from typing import Any

from msgspec.structs import replace

from preforkd.config import units
from preforkd.config.address import parse_address
from preforkd.config.consistency import contradictions
from preforkd.config.credentials import KEY, Credentials
from preforkd.config.document import Entry, Mapping, Node, Scalar, Sequence
from preforkd.config.fields import Field, Form, fields_of, leaves
from preforkd.config.peers import parse_peers
from preforkd.config.prefix import parse_prefix
from preforkd.config.settings import ListenSettings, Settings
from preforkd.config.settings_http import PARAMETERS
from preforkd.config.target import parse_check, parse_reference, parse_target, parse_warm_up
from preforkd.core.text import masked
from preforkd.errors import Place, Problem, did_you_mean

_FIELD_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?")


def _check_field_value(text: str) -> None:
    # RFC 9110, section 5.5; without non-ASCII characters, which clients decode differently.
    if text and not _FIELD_VALUE.fullmatch(text):
        raise ValueError(f"{text!r} is not a valid header value: use printable ASCII characters")


def _check_parameter(text: str) -> None:
    if text not in PARAMETERS:
        raise ValueError(f"{text!r} is not a parameter; expected one of {', '.join(PARAMETERS)}")


_GRAMMARS: dict[str, Callable[[str], object]] = {
    "app.target": parse_target,
    "app.check": parse_check,
    "app.warm_up": parse_warm_up,
    "hooks": lambda text: text and parse_reference(text),
    "http.prefix": parse_prefix,
    "http.server": _check_field_value,
    "proxy.parameters": _check_parameter,
    "proxy.trusted": parse_peers,
}
_NAME_GRAMMARS: dict[str, tuple[re.Pattern[str], str]] = {
    "app.environment": (re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "name of a variable"),
    "tls.certificates": (
        re.compile(r"(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"),
        "host name in ASCII",
    ),
}
"""What the names of a mapping look like, and what they are."""
_VARIABLE_LIMIT = 128 * 1024
"""Longest NAME=value in bytes, with its final NUL: MAX_ARG_STRLEN of execve(2)."""
_ALWAYS_UTF8 = frozenset({"app.directory", "app.python"})
"""Paths that are encoded as UTF-8 whatever the locale is."""


class Reader:
    """Reads a document and overrides into settings, and collects ``problems`` and ``origins`` meanwhile.

    ``secrets``: the paths of values that came from credentials; ``secret_texts``: these values, which are
    masked in every problem.
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        self.secrets: set[str] = set()
        self.secret_texts: set[str] = set()
        self._credentials = credentials or Credentials(None)
        self.problems: list[Problem] = []
        self.origins: dict[str, Place] = {}

    def settings(self, document: Mapping | None) -> Settings:
        """Return the settings of a document; a setting with a problem has its default."""
        return Settings(**(self._section(document, fields_of(Settings)) if document else {}))

    def check_consistency(self, settings: Settings) -> None:
        """Add the contradictions of the effective settings to the problems."""
        for found in contradictions(settings, self.secrets, self.origins):
            # The defaults are consistent: at least one setting of each contradiction was written.
            if (place := self.origins.get(found.setting)) is not None:
                self._report(place, found.setting, found.message, found.hint)

    def override(self, settings: dict[str, Any], path: str, node: Node) -> None:
        """Read the value of an option into a flat mapping of paths to values."""
        fields = {field.path: field for field in leaves()}
        shorts = {
            field.path: f"{field.path}.{field.short}"
            for field in fields_of(Settings)
            if field.short
        }
        path = path if path in fields else shorts.get(path, path)
        field = fields.get(path)
        if field is None:
            self._report(node.place, "", "unknown setting", did_you_mean(path, fields))
            return
        for known in [key for key in self.origins if key == path or key.startswith(path + "[")]:
            del self.origins[known]
        found, value = self._value(field, node)
        if found:
            settings[path] = value
            self.origins[path] = node.place

    def _report(self, place: Place, setting: str, message: str, hint: str = "") -> None:
        message, hint = (masked(text, self.secret_texts) for text in (message, hint))
        self.problems.append(Problem(place, setting, message, hint))

    # --- mappings --------------------------------------------------------------------------------

    def _section(self, mapping: Mapping, fields: Iterable[Field]) -> dict[str, Any]:
        known = {field.name: field for field in fields}
        values: dict[str, Any] = {}
        for entry in mapping.entries:
            field = known.get(entry.key.text)
            if field is None:
                self._unknown(entry, known)
                continue
            found, value = self._value(field, entry.value)
            if found:
                values[field.name] = value
        return values

    def _unknown(self, entry: Entry, known: MappingOf[str, Field]) -> None:
        name = entry.key.text
        prefix = next(iter(known.values())).path.rpartition(".")[0]
        elsewhere = [field.path for field in leaves() if field.name == name]
        if nearest := did_you_mean(name, known):
            hint = nearest
        elif elsewhere:
            hint = f"it exists as {' or '.join(elsewhere)}"
        else:
            hint = f"settings here: {', '.join(known)}"
        setting = f"{prefix}.{name}" if prefix else name
        self._report(entry.key.place, setting, "unknown setting", hint)

    # --- values ----------------------------------------------------------------------------------

    def _value(self, field: Field, node: Node) -> tuple[bool, Any]:
        """Return whether there is a valid value, and the value."""
        if isinstance(node, Scalar) and node.empty:
            return False, None  # a key without a value keeps the default
        if field.form is Form.SECTION:
            return self._struct(field, node)
        self.origins[field.path] = node.place
        if field.form is Form.LIST:
            return self._list(field, node)
        if field.form is Form.LISTEN:
            return self._listen(field, node)
        if field.form is Form.NAMES:
            return self._names(field, node)
        return self._single(field, node)

    def _single(self, field: Field, node: Node) -> tuple[bool, Any]:
        found = self._plain(field.path, node)
        if found is None:
            return False, None
        if not isinstance(found, Scalar):
            given = "a list" if isinstance(node, Sequence) else "a mapping"
            self._report(node.place, field.path, f"{given} is given; expected {field.allowed()}")
            return False, None
        return self._scalar(field, found)

    def _plain(self, path: str, node: Node) -> Node | None:
        """Return the node, or the value of ``{credential: NAME}``; None if that is unknown."""
        if not (isinstance(node, Mapping) and [e.key.text for e in node.entries] == [KEY]):
            return node
        name = node.entries[0].value
        self.secrets.add(path)
        try:
            text = self._credentials.read(name.text if isinstance(name, Scalar) else "")
        except ValueError as error:
            self._report(name.place, path, str(error))
            return None
        if text is None:
            return None
        self.secret_texts.add(text)
        return Scalar(text, True, node.place)

    def _struct(self, field: Field, node: Node) -> tuple[bool, Any]:
        assert field.struct is not None
        if field.short and not isinstance(node, Mapping):
            inner = next(
                f for f in fields_of(field.struct, field.path + ".") if f.name == field.short
            )
            found, value = self._value(replace(inner, path=field.path), node)
            self.origins[inner.path] = node.place
            return found, field.struct(**{field.short: value}) if found else None
        if not isinstance(node, Mapping):
            names = ", ".join(inner.name for inner in fields_of(field.struct))
            self._report(node.place, field.path, "expected a mapping", f"with keys: {names}")
            return False, None
        values = self._section(node, fields_of(field.struct, field.path + "."))
        return True, field.struct(**values)

    def _scalar(self, field: Field, node: Scalar) -> tuple[bool, Any]:
        text, secret = node.text, field.path in self.secrets
        invalid_secret = f"the value of the credential is not valid; expected {field.allowed()}"
        if text in field.choices:
            return True, text
        try:
            value = _parse(field, text)
            if field.path not in _ALWAYS_UTF8:
                _require_encodable(text)
            if (grammar := _GRAMMARS.get(field.path)) is not None:
                grammar(text)
        except ValueError as error:
            message, hint = (invalid_secret, "") if secret else (str(error), _hint(field, text))
            self._report(node.place, field.path, message, hint)
            return False, None
        low, high = field.ge, field.le
        if (low is not None and value < low) or (high is not None and value > high):
            message = f"{text} is out of range; expected {field.allowed()}"
            self._report(node.place, field.path, invalid_secret if secret else message)
            return False, None
        return True, value

    def _list(self, field: Field, node: Node) -> tuple[bool, Any]:
        texts = []
        for item in node.items if isinstance(node, Sequence) else (node,):
            found, text = self._single(field, item)
            if not found:
                return False, None
            texts.append(text)
        return True, tuple(texts)

    def _names(self, field: Field, node: Node) -> tuple[bool, Any]:
        if not isinstance(node, Mapping):
            self._report(node.place, field.path, f"expected {field.allowed()}", "write NAME: value")
            return False, None
        values: dict[str, str] = {}
        grammar, what = _NAME_GRAMMARS[field.path]
        for entry in node.entries:
            name = entry.key.text
            path = f"{field.path}.{name}"
            value = self._plain(path, entry.value)
            if not grammar.fullmatch(name):
                self._report(entry.key.place, path, f"{name!r} is not a valid {what}")
            elif value is None:
                continue
            elif not isinstance(value, Scalar):
                self._report(value.place, path, "expected a single value")
            elif problem := _problem_of_named(field.path, name, value.text):
                self._report(value.place, path, *problem)
            else:
                values[name] = value.text
                self.origins[path] = value.place
        return True, values

    # --- listen ----------------------------------------------------------------------------------

    def _listen(self, field: Field, node: Node) -> tuple[bool, Any]:
        nodes = node.items if isinstance(node, Sequence) else (node,)
        if not nodes:
            self._report(node.place, field.path, "the list is empty", f"expected {field.allowed()}")
        entries: list[ListenSettings] = []
        for index, item in enumerate(nodes):
            path = f"listen[{index}]"
            self.origins[path] = item.place
            listen = self._listen_entry(item, path)
            if listen is not None:
                self._check_listen(listen, entries, item.place, path)
                entries.append(listen)
        return bool(entries), tuple(entries)

    def _listen_entry(self, node: Node, path: str) -> ListenSettings | None:
        if isinstance(node, Scalar):
            return ListenSettings(address=node.text)
        if isinstance(node, Sequence):
            self._report(node.place, path, "a list is given; expected an address or a mapping")
            return None
        return ListenSettings(**self._section(node, fields_of(ListenSettings, path + ".")))

    def _check_listen(
        self, listen: ListenSettings, before: list[ListenSettings], place: Place, path: str
    ) -> None:
        if listen.address:
            try:
                parse_address(listen.address)
                _require_encodable(listen.address)
            except ValueError as error:
                at = self.origins.get(path + ".address", place)
                secret = path + ".address" in self.secrets
                message = "the value of the credential is not an address" if secret else str(error)
                self._report(at, path, message, "see listen in preforkd.yaml(5)")
        elif not listen.name:
            self._report(place, path, "an address or a name is required", "for example :8080")
        if any(listen.address and listen.address == other.address for other in before):
            self._report(place, path, f"duplicate address {listen.address}")
        if any(listen.name and listen.name == other.name for other in before):
            self._report(place, path, f"duplicate name {listen.name}")


_PARSERS: dict[Form, Callable[[str], Any]] = {
    Form.DURATION: units.parse_duration,
    Form.SIZE: units.parse_size,
    Form.REQUESTS: units.parse_requests,
    Form.MODE: units.parse_mode,
}


def _parse(field: Field, text: str) -> Any:
    if (parser := _PARSERS.get(field.form)) is not None:
        return parser(text)
    match field.form:
        case Form.INTEGER:
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
                raise ValueError(f"{text!r} is given; expected {field.allowed()}")
            return int(text)
        case Form.FLAG:
            if text.lower() not in units.FLAGS:
                raise ValueError(f"{text!r} is given; expected {field.allowed()}")
            return units.FLAGS[text.lower()]
        case Form.CHOICE:
            raise ValueError(f"{text!r} is given; expected {field.allowed()}")
        case _:
            if "\0" in text:
                raise ValueError("the text contains a NUL character")
            return text


def _problem_of_named(setting: str, name: str, text: str) -> tuple[str, str] | None:
    """Return what is wrong with a value in a mapping, and a hint; None: nothing."""
    if "\0" in text:
        return "the value contains a NUL character", ""
    if setting == "app.environment":
        size = len(f"{name}={text}\0".encode())
        if size > _VARIABLE_LIMIT:
            message = f"{size} bytes exceed the limit of Linux for a variable ({_VARIABLE_LIMIT})"
            return message, "store the value in a file and pass the file's name"
        return None
    try:
        _require_encodable(text)
    except ValueError as error:
        return str(error), ""
    return None


def _require_encodable(text: str) -> None:
    # Only paths reach functions of the system, which encode them.
    try:
        if "/" in text:
            os.fsencode(text)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise ValueError(
            f"{text!r} cannot be encoded in the locale's encoding ({encoding}); set LC_ALL=C.UTF-8"
        ) from None


def _hint(field: Field, text: str) -> str:
    if nearest := did_you_mean(text.lower(), field.choices):
        return nearest
    if field.form in {Form.DURATION, Form.SIZE, Form.REQUESTS} and field.default is not None:
        words = f"; it may be {' or '.join(field.choices)}, too" if field.choices else ""
        return f"the default is {field.write(field.default)}{words}"
    return ""
