"""Configurations as people have them, and what each becomes: the files in ``cases``.

A file has three parts between lines of dashes: the name of the configuration's file, or ``command``; its
text; and the result in lines: each setting that differs from its default, each line of the unit, each option
with a note, and the options that need nothing. ``python -m tests.cli.convert.cases`` writes the results; read
the difference.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from preforkd.cli.convert import command
from preforkd.cli.convert.draft import Draft
from preforkd.config import sources
from preforkd.config.fields import fields_of, get, leaves
from preforkd.config.settings import ListenSettings, Settings

FOLDER = Path(__file__).parent / "cases"
PATHS = sorted(FOLDER.glob("*.txt"))
LINE = "\n----\n"


def parts(path: Path) -> list[str]:
    """Return the three parts of a case; the last is empty if it was never written."""
    found = path.read_text().split(LINE)
    return [found[0], found[1].rstrip("\n"), found[2] if len(found) > 2 else ""]


def converted(path: Path, folder: Path) -> Draft:
    """Return the draft of a case, which is converted in this folder."""
    name, text, _ = parts(path)
    with contextlib.chdir(folder):
        if name == "command":
            return command.convert(text)
        (folder / name).write_text(text + "\n")
        return command.convert(name)


def result(draft: Draft, folder: Path) -> str:
    """Return the lines of the result; the settings are what preforkd check reads in the file."""
    file = folder / "preforkd.yaml"
    file.write_text(draft.write_settings())
    lines = [
        *_settings(sources.load(str(file), {}).settings),
        *(f"{line}" for line in draft.write_unit().splitlines() if "=" in line and line[0] != "#"),
        *(f"note: {option}" for option, _ in draft.notes),
        *([f"not needed: {', '.join(draft.needless)}"] if draft.needless else []),
    ]
    return "\n".join(lines) + "\n"


def _settings(settings: Settings) -> Iterator[str]:
    for field in leaves():
        value = get(settings, field.path)
        if field.path == "listen":
            for index, entry in enumerate(value):
                for inner in fields_of(ListenSettings, f"listen[{index}]."):
                    if get(entry, inner.name) != inner.default:
                        yield f"{inner.path}: {inner.write(get(entry, inner.name))}"
        elif value != field.default:
            yield f"{field.path}: {value if isinstance(value, dict) else field.write(value)}"


def main() -> None:
    """Write the result into each case."""
    for path in PATHS:
        with tempfile.TemporaryDirectory() as folder:
            text = result(converted(path, Path(folder)), Path(folder))
        path.write_text(LINE.join([*parts(path)[:2], text]))


if __name__ == "__main__":
    main()
