"""Lazy imports are resolved before the fork."""

import sys
import types

import pytest

from preforkd.apps import lazy_imports
from tests.zygote.interpreters import run, suitable

RESOLVED = """
import logging, sys, types
sys.path.insert(0, sys.argv[1])
import first
from preforkd.apps import lazy_imports

def lazy(module):
    return sorted(name for name, value in vars(module).items() if type(value) is types.LazyImportType)

logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
print(lazy(first), "second" in sys.modules, "third" in sys.modules)
print(lazy_imports.resolve() >= 4)
print(lazy(first), lazy(sys.modules["second"]), sys.modules["third"].VALUE, first.second.third.VALUE)
print(lazy_imports.resolve())
"""


@pytest.mark.parametrize("python", suitable())
def test_what_lazy_modules_import_lazily_is_resolved_too(python, tmp_path):
    """Modules and names of modules; an import that fails is logged and stays lazy."""
    if "LazyImportType" not in run(python, "import types; print(dir(types))"):
        pytest.skip("this interpreter has no lazy imports")
    (tmp_path / "first.py").write_text(
        "lazy import second\nlazy from second import NAME as name\nlazy import not_there\nlazy import ends\n"
    )
    (tmp_path / "second.py").write_text("NAME = 1\nlazy import third\nlazy import first\n")
    (tmp_path / "third.py").write_text("VALUE = 3\n")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit('no display')\n")
    fails = [
        "the lazy import of not_there in module first fails: No module named 'not_there'",
        "the lazy import of ends in module first fails: no display",
    ]
    assert run(python, RESOLVED, str(tmp_path)).splitlines() == [
        "['ends', 'name', 'not_there', 'second'] False False",
        *fails,
        "True",
        "['ends', 'not_there'] [] 3 3",
        *fails,
        "0",
    ]


@pytest.mark.skipif(hasattr(types, "LazyImportType"), reason="this interpreter has lazy imports")
def test_older_interpreters_have_none():
    """Nothing is imported."""
    before = set(sys.modules)
    assert lazy_imports.resolve() == 0
    assert set(sys.modules) == before
