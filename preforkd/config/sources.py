"""Where settings come from: the defaults, overridden by the file, overridden by the command line.

The master runs this in a child process (`preforkd.config.reader_process`); preforkd check and config call it
directly.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence as Sequence_
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from preforkd.config.configuration import DEFAULT_PATH, Configuration
from preforkd.config.credentials import Credentials
from preforkd.config.document import (
    SIZE_LIMIT,
    Mapping as Mapping_,
    Node,
    Scalar,
    Sequence,
    read_document,
)
from preforkd.config.encoding import native
from preforkd.config.fields import Form, get, leaves
from preforkd.config.files import read_bounded
from preforkd.config.reader import Reader
from preforkd.config.reader_process import ReadRequest, ReadResult
from preforkd.config.settings import OnReload, Settings
from preforkd.core.text import HIDDEN
from preforkd.errors import ConfigurationError, Place, Problem, did_you_mean

_OPTION_NAMES = {
    "access_log.format": "--access-log",
    "access_log.target": "--access-log",
    "app.target": "the argument KIND:MODULE:ATTRIBUTE",
    "log.level": "--log-level",
    "workers.count": "--workers",
}
_MOST_PROBLEMS = 100
_WITHOUT_KIND = re.compile(r"'([\w.]+:[\w.]+)' has no kind")
_Section = TypeVar("_Section", bound=msgspec.Struct)


class Effective(msgspec.Struct, frozen=True):
    """The value of one setting and its origin; ``place`` is None for a default."""

    setting: str
    value_text: str
    place: Place | None
    on_reload: OnReload


def load(
    path: str | None, options: Mapping[str, object], credentials: Credentials | None = None
) -> Configuration:
    """Return the settings of a file (None: the default file, if it exists), overridden by options.

    ``options`` maps dotted settings to a text, or to a list of texts for ``listen``. ``--set SETTING`` is a
    setting that is named by the command line; its text may be a list or a mapping of YAML. ``--tls`` is the
    certificate of all listeners and, after a comma, its key. Raises ConfigurationError with all problems.
    """
    found = _find(path)
    document: Mapping_ | None = None
    problems: list[Problem] = []
    if found is not None:
        document, problems = read_document(_read(found), found)
    reader = Reader(credentials)
    settings = reader.settings(document)
    changed: dict[str, Any] = {}
    for option, value in options.items():
        for setting, node in _option_nodes(option, value):
            reader.override(changed, setting, node)
    settings = _with(settings, changed)
    if "--tls" in options:
        listen = tuple(replace(each, tls=True) for each in settings.listen)
        settings = replace(settings, listen=listen)
    reader.check_consistency(settings)
    problems = sorted(problems + reader.problems, key=_order)
    problems = [_with_kind(problem, settings.app.directory) for problem in problems]
    if len(problems) > _MOST_PROBLEMS:
        # Each is logged, sent to the client that requested the reload, and kept in memory.
        rest = Problem(problems[_MOST_PROBLEMS].place, "", "further problems are not listed")
        problems[_MOST_PROBLEMS:] = [rest]
    if problems:
        raise ConfigurationError(problems)
    secrets = frozenset(reader.secrets)
    return Configuration(settings, reader.origins, found, secrets, tuple(reader.secret_texts))


def run_child() -> None:
    """Run as the child process: read a ReadRequest from standard input, write a ReadResult to standard output."""
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ReadRequest)
    credentials = Credentials(request.credentials)
    try:
        result = ReadResult(load(request.path, request.options, credentials))
    except ConfigurationError as error:
        result = ReadResult(problems=list(error.problems))
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))


def effective(configuration: Configuration) -> list[Effective]:
    """Return every setting with its value, as it is written in the file, and its origin."""
    entries: list[Effective] = []
    for leaf in leaves():
        value = get(configuration.settings, leaf.path)
        if leaf.form is Form.LISTEN:
            text = ", ".join(
                _shown(configuration, f"listen[{index}].{name}", getattr(listen, name))
                for index, listen in enumerate(value)
                for name in ("address" if listen.address else "name",)
            )
        elif leaf.form is Form.NAMES:
            text = " ".join(
                f"{name}={_shown(configuration, f'{leaf.path}.{name}', inner)}"
                for name, inner in value.items()
            )
        else:
            text = _shown(configuration, leaf.path, leaf.write(value))
        entries.append(
            Effective(
                leaf.path, text or "(empty)", configuration.origins.get(leaf.path), leaf.on_reload
            )
        )
    return entries


def _shown(configuration: Configuration, path: str, text: str) -> str:
    return HIDDEN if path in configuration.secrets else text


def _order(problem: Problem) -> tuple[int, int]:
    return problem.place.line or 1 << 30, problem.place.column


def _find(path: str | None) -> str | None:
    if path is not None:
        return path
    # A dangling symbolic link or a directory without search permission does not count as a missing file.
    try:
        os.lstat(DEFAULT_PATH)
    except FileNotFoundError:
        return None
    except OSError:
        pass
    return DEFAULT_PATH


def _read(path: str) -> bytes:
    try:
        return read_bounded(native(path), SIZE_LIMIT + 1)
    except OSError as error:
        hints = {
            errno.ENOENT: _nearest(path) or "restore it, or name an existing file",
            errno.EACCES: f"user {os.geteuid()} needs permission to read it and to search its directories",
        }
        hint = hints.get(error.errno or 0, "")
        problem = Problem(Place(path), "", f"cannot be read: {error.strerror}", hint)
        raise ConfigurationError([problem]) from error


def _nearest(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        return did_you_mean(name, os.listdir(folder or "."))
    except OSError:
        return ""


def _option_node(setting: str, value: object) -> Node:
    place = Place(_OPTION_NAMES.get(setting) or "--" + setting.rpartition(".")[2])
    if isinstance(value, list):
        return Sequence(tuple(Scalar(str(text), True, place) for text in value), place)
    return Scalar(str(value), True, place)


def _option_nodes(option: str, value: object) -> Iterator[tuple[str, Node]]:
    place = Place(option)
    if option == "--tls":
        certificate, _, key = str(value).partition(",")
        yield "tls.certificate", Scalar(certificate, True, place)
        yield "tls.key", Scalar(key, True, place)
    elif option.startswith("--set "):
        yield option.removeprefix("--set "), _written(str(value), option)
    else:
        yield option, _option_node(option, value)


def _written(text: str, option: str) -> Node:
    # A list or a mapping as in the file; another text is not YAML's, so that it needs no quotes.
    if not text.startswith(("[", "{")):
        return Scalar(text, True, Place(option))
    document, problems = read_document(f"value: {text}".encode(), option)
    if problems or document is None:
        raise ConfigurationError(problems)
    return document.entries[0].value


def _with_kind(problem: Problem, directory: str) -> Problem:
    found = _WITHOUT_KIND.match(problem.message) if problem.setting == "app.target" else None
    if found is None or problem.hint:
        return problem
    # Imported here: it parses Python, for an error only.
    from preforkd.config import found_kind  # noqa: PLC0415

    return replace(problem, hint=found_kind.hint(found[1], directory))


def _with(settings: Settings, changed: Mapping[str, Any]) -> Settings:
    for path, value in changed.items():
        settings = _with_one(settings, path.split("."), value)
    return settings


def _with_one(section: _Section, names: Sequence_[str], value: Any) -> _Section:
    name, *rest = names
    if rest:
        value = _with_one(getattr(section, name), rest, value)
    return replace(section, **{name: value})
