"""One language: the words of the glossary (CONTRIBUTING.md), and none of a private one."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("preforkd", "systemd", "packaging", "etc")
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

BANNED = re.compile(
    r"\b(?:"
    r"tell|tells|told|teller|say|says|said|hear|hears|heard"  # send, log, notify, report, callback
    r"|so many|for people|of its own accord"
    r"|patience|farewell|gossip|herald|chronicle|lookout|gauge|crew|relief|nursery"
    r"|gathering|bell|strikes|holes|gate|custody|fate"
    r"|what served|serves on"
    r"|nobody|somebody|whoever"
    r"|wish|wishes"  # the policy plans actions
    r")\b",
    re.IGNORECASE,
)

ALLOWED = {
    "preforkd/apps/wsgi.py: offset = file.tell()": "a method of the language's files",
    'preforkd/cli/preforkd.py: commands.add_parser("farewell").set_defaults(command=_wait_workers)': (
        "the command's name of before, which units of an administrator may call"
    ),
}
"""Lines (as ``file: text``, without indentation) that may have one of these words, each with the reason."""


def _lines():
    paths = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*"))]
    for path in [*paths, *(ROOT / name for name in FILES)]:
        if not path.is_file() or "__pycache__" in path.parts or path.suffix in {".png", ".pyc"}:
            continue
        name = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            # A name in snake_case is read as its words.
            yield name, number, line.strip(), re.sub(r"(?<=[a-z])_|_(?=[a-z])", " ", line)


def test_no_private_language():
    """Code, logs, settings' help, catalog, man pages, units and guides use the field's words."""
    found = [
        f"{name}:{number}: {line}"
        for name, number, line, words in _lines()
        if BANNED.search(words) and f"{name}: {line}" not in ALLOWED
    ]
    assert not found, "\n".join(found)


def test_the_exceptions_are_few_and_in_use():
    """At most ten, each with a reason; one that is not needed any more goes."""
    present = {f"{name}: {line}" for name, _, line, _ in _lines()}
    assert len(ALLOWED) <= 10
    assert set(ALLOWED) <= present
    assert all(ALLOWED.values())


def test_the_places_of_the_glossary_exist():
    """Who looks up a term finds the module; a module that was renamed is renamed there, too."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    terms = re.findall(r"^\| [a-z].*\|$", text.partition("## Map")[0], re.MULTILINE)
    assert 40 <= len(terms) <= 60
    places = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", text))
    assert {name for name in places if not (ROOT / "preforkd" / name).exists()} <= {
        name for name in places if (ROOT / name).exists()
    }
