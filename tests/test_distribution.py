"""What pip installs: the sdist, the wheel that is made from it, and what they require."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.test_tools import ROOT

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
DISTRIBUTION = {"yaml": "pyyaml"}
"""Names of packages that are imported by another name."""
OUTSIDE = {"gevent", "eventlet", "setuptools"}
"""Imported only if the application has already done so."""


def modules(folder):
    """Return the modules below this folder, as paths that start with the package's name."""
    return {str(path.relative_to(folder)) for path in (folder / "preforkd").rglob("*.py")}


def build(what, tree, folder):
    """Return the file that setuptools builds, as pip calls it."""
    command = [sys.executable, "-W", "ignore", "-c", BUILD, f"build_{what}", str(folder)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel that is built from the sdist, which is built from a copy of this tree."""
    folder = tmp_path_factory.mktemp("distribution")
    tree = folder / "tree"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=ignored)
    sdist = build("sdist", tree, folder)
    (folder / "unpacked").mkdir()
    subprocess.run(["tar", "xf", str(sdist), "-C", str(folder / "unpacked")], check=True)
    (unpacked,) = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder)


def test_the_wheel_from_the_sdist_is_complete_and_pure(wheel):
    """Every module, its type marker, and both programs; nothing is compiled."""
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entries,) = (name for name in names if name.endswith("entry_points.txt"))
        programs = archive.read(entries).decode()
    assert {name for name in names if name.endswith(".py")} == modules(ROOT)
    assert "preforkd/py.typed" in names
    assert "preforkd = preforkd.cli.preforkd:main" in programs
    assert "preforkctl = preforkd.cli.preforkctl:main" in programs


def imports(path):
    """Yield the top-level packages that a module imports, anywhere in its text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_import_is_declared():
    """What a module imports is Python's own, required, or named by an extra; systemd-python is not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {each.partition(">=")[0] for name in ("asgi", "uvloop") for each in extras[name]}
    named |= {each.partition(">=")[0] for each in project["dependencies"]}
    found = {
        DISTRIBUTION.get(name, name)
        for path in (ROOT / "preforkd").rglob("*.py")
        for name in imports(path)
    }
    assert found - sys.stdlib_module_names - {"preforkd"} - OUTSIDE == named
