"""What ``preforkd convert`` does with its argument."""

import os
import re

from preforkd.cli.convert import (
    command_line,
    gunicorn,
    gunicorn_file,
    translating,
    uwsgi,
    uwsgi_file,
)
from preforkd.cli.convert.draft import Draft
from preforkd.cli.convert.given import Given, Options, failed, words
from preforkd.core.text import printable
from preforkd.errors import Place

_SIZE_LIMIT = 1 << 20


def convert(source: str) -> Draft:
    """Return what a file, or a command that contains a space, becomes. Raises ConfigurationError."""
    if os.path.exists(source) or not re.search(r"\s", source.strip()):
        return _of_file(source)
    return _of_command(words(source, Place("the command")))


def _of_file(path: str) -> Draft:
    text = _read(path)
    draft = Draft(os.path.basename(path))
    if path.endswith(".py"):
        options = gunicorn_file.read(text, os.path.abspath(path))
        gunicorn.translate(draft, options, gunicorn_file.unused(text, options))
    elif path.endswith(".ini") or "[uwsgi]" in text:
        uwsgi.translate(draft, uwsgi_file.read(text, path), uwsgi_file.referenced(text))
    else:
        hint = "a gunicorn.conf.py, a uwsgi.ini, or a command in quotes"
        raise failed(Place(path), "neither Python nor an INI file with [uwsgi]", hint)
    return draft


def _of_command(arguments: list[str]) -> Draft:
    command = command_line.split(arguments)
    draft = Draft(f"a command of {command.server}")
    environment = []
    inherited: Options = {}
    for pair in command.environment:
        if pair.startswith("GUNICORN_CMD_ARGS="):
            text = pair.partition("=")[2]
            inherited, _ = command_line.gunicorn_options(words(text, Place("GUNICORN_CMD_ARGS")))
        else:
            environment.append(pair)
    translating.add_environment(draft, environment, "environment")
    translating.set_python(draft, command.program)
    for text in filter(None, command.before):
        draft.note(printable(text), "ExecStartPre= in the unit")
    if command.wrappers:
        text = "it started the former server; ExecStart= of the unit can start preforkd by it"
        draft.note(printable(" ".join(command.wrappers)), text)
    if command.server == "uwsgi":
        uwsgi.translate(draft, *_with_files(uwsgi_file.of_words(command.arguments)))
    else:
        options, rest = command_line.gunicorn_options(command.arguments)
        for argument in rest:
            draft.note(printable(argument), "no argument of gunicorn: find what it stands for")
        _gunicorn(draft, inherited | options)
    return draft


def _gunicorn(draft: Draft, options: Options) -> None:
    found: Options = {}
    unused: set[str] = set()
    config = options.pop("config", None)
    path = config.text.removeprefix("file:") if config else "gunicorn.conf.py"
    if os.path.exists(path):
        text = _read(path)
        found = gunicorn_file.read(text, os.path.abspath(path))
        unused = gunicorn_file.unused(text, found)
    elif config:
        draft.note(
            "config", f"{printable(path or config.computed)} is not here: convert it as well"
        )
    gunicorn.translate(draft, found | options, unused)


def _with_files(lines: uwsgi_file.Lines) -> tuple[uwsgi_file.Lines, set[str]]:
    """Return the options with those of INI files that they name, and the names of placeholders in these."""
    whole: uwsgi_file.Lines = []
    names: set[str] = set()
    for name, given in lines:
        if _is_file(name, given):
            text = _read(given.text)
            whole += uwsgi_file.read(text, given.text)
            names |= uwsgi_file.referenced(text)
        else:
            whole.append((name, given))
    return whole, names


def _is_file(name: str, given: Given) -> bool:
    return name in {"", "ini"} and given.text.endswith(".ini") and os.path.exists(given.text)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_SIZE_LIMIT + 1)
    except UnicodeDecodeError:
        raise failed(Place(path), "not UTF-8") from None
    except OSError as error:
        hint = (
            ""
            if os.path.dirname(path)
            else "a command is given in quotes: 'gunicorn -w 4 mysite.wsgi'"
        )
        raise failed(Place(path), f"cannot be read: {error.strerror}", hint) from error
    if len(text) > _SIZE_LIMIT:
        raise failed(Place(path), "larger than 1 MiB")
    return text
