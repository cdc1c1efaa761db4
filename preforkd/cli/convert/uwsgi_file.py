"""A uwsgi.ini, or the options of uWSGI's command line.

https://uwsgi-docs.readthedocs.io/en/latest/Configuration.html
"""

import os
import re

from msgspec.structs import replace

from preforkd.cli.convert.command_line import given as given_word
from preforkd.cli.convert.given import Given
from preforkd.errors import Place

Lines = list[tuple[str, Given]]
"""Options in their order: one may stand several times."""

_PLACEHOLDER = re.compile(r"%\(([^()]+)\)|%([a-zA-Z])")
_VARIABLE = re.compile(r"\$\((\w+)\)|@\(")
_WITH_SIGNS = frozenset({"log-format", "logformat", "log-date", "log-encoder"})
"""Options in whose values a percent sign has a meaning of its own."""
_SHORT = {
    "-C": "chmod-socket", "-H": "home", "-L": "disable-logging", "-M": "master", "-R": "max-requests",
    "-T": "enable-threads", "-b": "buffer-size", "-d": "daemonize", "-i": "single-interpreter", "-l": "listen",
    "-p": "processes", "-s": "socket", "-t": "harakiri", "-w": "module", "-z": "socket-timeout",
}  # fmt: skip
_SWITCHES = frozenset({
    "die-on-term", "disable-logging", "enable-threads", "lazy", "lazy-apps", "log-4xx", "log-5xx", "log-master",
    "manage-script-name", "master", "memory-report", "need-app", "no-orphans", "single-interpreter", "strict",
    "thunder-lock", "vacuum", "http-keepalive", "auto-procname", "ignore-sigpipe", "ignore-write-errors",
    "disable-write-exception", "py-call-osafterfork", "harakiri-verbose", "http-websockets",
    "log-x-forwarded-for", "so-keepalive", "reuse-port", "catch-exceptions", "so-reuseport", "show-config",
})  # fmt: skip


def read(text: str, path: str) -> Lines:
    """Return the options of the section [uwsgi] in their order, with placeholders replaced."""
    lines: Lines = []
    values: dict[str, str] = {}
    section, condition, variable = "", "", ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[]").strip()
        if section != "uwsgi" or not line or line[0] in "#;[":
            continue
        name, _, value = (part.strip() for part in line.partition("="))
        value = re.split(r"\s[#;]", value)[0].strip()
        if name.startswith(("if-", "ifdef", "for")):
            condition, variable = line, value
        elif name.startswith("end"):
            condition = variable = ""
        elif not condition.startswith("if-env"):  # without variables of the environment
            given = _given(name, value or "true", Place(path, number, 1), values)
            if condition.startswith("if-not-env"):
                given = replace(given, variables=(variable,))
            elif condition:
                given = Given(None, given.place, f"{value}, {condition}")
            lines.append((name, given))
            values[name] = value
            if name in {"set", "set-placeholder", "set-ph"}:
                inner, _, text_of = value.partition("=")
                values[inner.strip()] = text_of.strip()
    return lines


def _given(name: str, text: str, place: Place, values: dict[str, str]) -> Given:
    if name in _WITH_SIGNS:
        return Given(text, place)
    whole = os.path.abspath(place.source)
    folder, file = os.path.split(whole)
    magic = {"d": folder + "/", "n": os.path.splitext(file)[0], "s": file, "p": whole}

    def replaced(found: "re.Match[str]") -> str:
        named, letter = found[1], found[2]
        return values.get(named, found[0]) if named else magic.get(letter, found[0])

    for _ in range(5):  # a placeholder may stand for one that contains another
        text = _PLACEHOLDER.sub(replaced, text)
    if _VARIABLE.search(text) or _PLACEHOLDER.search(text):
        return Given(None, place, text)
    return Given(text, place)


def referenced(text: str) -> set[str]:
    """Return the names of the placeholders in a file, ``%(NAME)``."""
    return {found[1] for found in _PLACEHOLDER.finditer(text) if found[1]}


def of_words(words: list[str]) -> Lines:
    """Return the options of a command line; a word that belongs to none has the option's name ``""``."""
    lines: Lines = []
    waiting = ""
    for word in words:
        if waiting and not (word.startswith("--") and len(word) > 2):
            lines.append((waiting, given_word(word, waiting)))
            waiting = ""
            continue
        if waiting:
            lines.append((waiting, given_word("true", waiting)))
            waiting = ""
        name, sign, value = word.partition("=")
        if word[:2] in _SHORT and not word.startswith("--"):
            name, value = _SHORT[word[:2]], word[2:]
            sign = value
        elif word.startswith("--"):
            name = name[2:]
        else:
            lines.append(("", given_word(word, word)))
            continue
        if sign:
            lines.append((name, given_word(value, name)))
        elif name in _SWITCHES:
            lines.append((name, given_word("true", name)))
        else:
            waiting = name
    if waiting:
        lines.append((waiting, given_word("true", waiting)))
    return lines
