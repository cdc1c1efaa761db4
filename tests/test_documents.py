"""README, guides and other documents: their sizes, their links, and that what they show exists."""

import contextlib
import io
import re
import shlex
import tomllib
from datetime import datetime

import msgspec
import pytest

import preforkd
from preforkd.cli import preforkctl, preforkd as program
from preforkd.config import sources
from preforkd.config.fields import fields_of, leaves
from preforkd.config.settings import Settings
from preforkd.control import records
from preforkd.errors import ConfigurationError
from tests.test_tools import ROOT

GUIDES = sorted((ROOT / "packaging/doc").glob("*.md"))
README = ROOT / "README.md"
LINKING = [*sorted(ROOT.glob("*.md")), *GUIDES]
SHOWING = [README, *GUIDES]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")


def name(path):
    """Return what pytest calls a document."""
    return path.name


def prose(path):
    """Return a document without its blocks of code."""
    return re.sub(r"^(    .*|)$", "", path.read_text(), flags=re.MULTILINE)


def blocks(path):
    """Return the indented blocks of code of a document, without the indentation."""
    lines = [line if line.startswith("    ") else "" for line in path.read_text().split("\n")]
    text = "\n".join(line[4:] for line in lines)
    return [block for block in re.split(r"\n{2,}", text) if block]


def anchor(heading):
    """Return the anchor that web views make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_there_are_the_guides():
    """None is lost: README links each of them, preforkd(8) names it."""
    assert [path.stem for path in GUIDES] == [
        "design",
        "hooks",
        "http",
        "memory",
        "operations",
        "pool",
        "systemd",
        "tls",
    ]
    linked = set(LINK.findall(README.read_text()))
    assert {f"packaging/doc/{path.name}" for path in GUIDES} <= linked
    manual = (ROOT / "packaging/man/preforkd.8").read_text()
    assert all(path.name in manual for path in GUIDES)


@pytest.mark.parametrize(("path", "most"), [(README, 8192), *((path, 10240) for path in GUIDES)])
def test_no_document_outgrows_its_reader(path, most):
    """README has 8 KiB at the most, a guide 10."""
    assert path.stat().st_size <= most


@pytest.mark.parametrize("path", LINKING, ids=name)
def test_each_relative_link_resolves(path):
    """It leads to a file of this tree, and to a heading of it."""
    for link in LINK.findall(prose(path)):
        if link.startswith("https://"):
            continue
        target, _, part = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        assert file.is_relative_to(ROOT), link
        if part:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert part in map(anchor, headings), link


def commands(path):
    """Yield the calls of our programs that a document shows, as words."""
    for block in blocks(path):
        for line in block.split("\n"):
            command = line.removeprefix("$ ").partition(" #")[0].strip()
            match = re.match(r"(?:\.venv/bin/)?(preforkd|preforkctl)( .+)", command)
            if match is None or match[2].startswith((" 0.", " (")):  # what they print
                continue
            yield match[1], re.sub(r" \|.*|[][]", "", match[2])


@pytest.mark.parametrize("path", SHOWING, ids=name)
def test_each_command_is_one(path):
    """The parsers of preforkd and preforkctl take what a document shows."""
    for which, arguments in commands(path):
        parser = (program if which == "preforkd" else preforkctl)._parser()
        words = shlex.split(arguments.replace(" N", " 6"))
        with contextlib.redirect_stderr(io.StringIO()) as complaint:
            try:
                parser.parse_args(words)
            except SystemExit:
                pytest.fail(f"{which} {arguments}: {complaint.getvalue()}")


def test_commands_are_found():
    """The test above is not empty."""
    assert len([one for path in SHOWING for one in commands(path)]) > 10


SECTIONS = {field.name for field in fields_of(Settings)}
SETTINGS = {leaf.path for leaf in leaves()} | SECTIONS | {"memory.refork"}
BARE = re.compile(r"([a-z_]+)\.[a-z_.]+")
EVENT = re.compile(r"(http|websocket)\.(request|disconnect|(http\.)?response(\.[a-z_]+)*)")
"""Of ASGI, named as settings are."""


@pytest.mark.parametrize("path", SHOWING, ids=name)
def test_each_setting_is_one(path):
    """A name in code that begins as a section does is a setting."""
    for code in CODE.findall(prose(path)):
        match = BARE.fullmatch(code)
        if match and match[1] in SECTIONS - {"app"} and not code.endswith((".service", ".conf")):
            assert code in SETTINGS or EVENT.fullmatch(code), code


def snippets(path):
    """Yield the settings that a document shows, in blocks and in code within lines."""
    for code in CODE.findall(prose(path)):
        if code.partition(": ")[0] in SECTIONS and ": " in code and "..." not in code:
            yield code
    for block in blocks(path):
        if block.partition(":")[0] in SECTIONS and "..." not in block:
            yield block


@pytest.mark.parametrize("path", SHOWING, ids=name)
def test_each_configuration_is_valid(path, tmp_path):
    """What is to be copied into a file is accepted there, but for what only the whole file has."""
    elsewhere = (
        "needs a certificate|no listener speaks TLS|no proxy is trusted|proxies|no credentials"
    )
    file = tmp_path / "preforkd.yaml"
    for text in snippets(path):
        # The lines of a block that offers alternatives are each a file.
        keys = [line.partition(":")[0] for line in text.split("\n")]
        for one in text.split("\n") if len(set(keys)) < len(keys) else [text]:
            file.write_text(one + "\n")
            try:
                sources.load(str(file), {})
            except ConfigurationError as error:
                problems = [problem.message for problem in error.problems]
                wrong = [problem for problem in problems if not re.search(elsewhere, problem)]
                assert wrong == [], one


def test_configurations_are_found():
    """The test above is not empty."""
    assert len([one for path in SHOWING for one in snippets(path)]) > 15


def test_the_status_that_is_shown_is_what_is_printed():
    """The operations guide's sample is preforkctl's own text for such a service."""
    worker = records.WorkerStatus(
        slot=1,
        pid=5121,
        generation=3,
        state="ready",
        serving=True,
        busy_seconds=0.2,
        requests=10401,
        connections=12,
        accepted=12,
        age_seconds=5 * 3600 + 7 * 60,
        busy_with="GET /cart HTTP/1.1",
        spent="",
    )
    reload = records.ReloadStatus(
        generation=3,
        ok=True,
        message="generation 3 is serving, loaded from /srv/shop",
        blame=None,
        detail="",
        hint="",
        at_unix=datetime(2026, 11, 23, 22, 59, 5).astimezone().timestamp(),
    )
    service = records.ServiceStatus(
        version="0.1.0",
        pid=4705,
        state="serving",
        status="4 of 4 workers ready, 1 busy, generation 3",
        generation=3,
        ready=4,
        target=4,
        least=2,
        most=32,
        by_hand=False,
        busy=1,
        waiting=0,
        uptime_seconds=(2 * 24 + 3) * 3600,
        configuration="/etc/preforkd.yaml",
        problems=[],
        workers=[worker],
        generations=[records.GenerationStatus(3, "current", 5120, "ready", 4)],
        listeners=[records.ListenerStatus("[::]:8000", "[::]:8000", "bound")],
        last_reload=reload,
    )
    text = preforkctl.render(msgspec.to_builtins(service))
    head, table = text.split("\n\n")
    shown = blocks(ROOT / "packaging/doc/operations.md")
    assert f"$ preforkctl status\n{head}" in shown
    assert table in shown


def test_the_memory_that_is_shown_is_what_is_printed():
    """The memory guide's sample is preforkctl's own text for such processes."""
    processes = [
        records.ProcessMemory(role, slot, generation, pid, 0, *map(megabytes, sizes), growth)
        for role, slot, generation, pid, sizes, growth in (
            ("worker", 1, 3, 5121, (24.4, 8.9, 92.3), megabytes(8.3)),
            ("worker", 2, 3, 5122, (22.7, 7.1, 92.3), megabytes(6.6)),
            ("zygote", None, 3, 5120, (15.8, 0.4, 92.2), None),
            ("master", None, None, 5119, (14.1, 10.3, 16.9), None),
        )
    ]
    memory = records.MemoryStatus(processes, megabytes(77.0), megabytes(194.0), [])
    table, total = preforkctl.render_memory(msgspec.to_builtins(memory)).split("\n\n")
    shown = blocks(ROOT / "packaging/doc/memory.md")
    assert f"$ preforkctl memory\n{table}" in shown
    assert total in shown


def megabytes(size):
    """Return bytes."""
    return int(size * (1 << 20))


def test_the_design_names_the_layers_and_modules_that_there_are():
    """Its picture of the layers is pyproject.toml's, and each module in it exists."""
    text = (ROOT / "packaging/doc/design.md").read_text()
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (rule["layers"] for rule in linter["contracts"] if rule["type"] == "layers")
    picture = "".join(f"    {layer.replace('preforkd.', '')}\n" for layer in layers)
    assert f"\n\n{picture}\n" in text
    packages = {path.name for path in (ROOT / "preforkd").iterdir() if path.is_dir()}
    for code in set(CODE.findall(text)) - SETTINGS:
        name = code.removeprefix("preforkd.")
        if name.partition(".")[0] in packages and re.fullmatch(r"[a-z_.]+", name):
            path = ROOT / "preforkd" / name.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").exists(), code


def test_the_license_is_the_packages():
    """LICENSE and the Debian package name the same holder and the same text."""
    ours = (ROOT / "LICENSE").read_text()
    debian = (ROOT / "packaging/debian/copyright").read_text()
    holder = re.search(r"^Copyright: (.+)$", debian, re.MULTILINE)
    assert holder is not None
    assert f"Copyright (c) {holder[1]}\n" in ours
    text = " ".join(
        debian.partition("License: MIT\n Permission")[2].replace("\n .\n", "\n").split()
    )
    assert text in " ".join(ours.split())


def test_the_changelog_has_this_version():
    """What is built is described."""
    assert f"\n## {preforkd.VERSION} " in (ROOT / "CHANGELOG.md").read_text()
