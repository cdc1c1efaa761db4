"""Libraries that are lent to another interpreter."""

import importlib
import sys

import pytest

from preforkd.cli import import_fallback


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A directory with two packages; what is done to the finders and modules is undone."""
    for name in ("lent_library", "other_library"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("where = 'lent'\n")
        (tmp_path / name / "part.py").write_text("")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path
    for name in [
        name for name in sys.modules if name.startswith(("lent_library", "other_library"))
    ]:
        del sys.modules[name]


def test_what_is_lent_is_found_and_nothing_beside_it(beside):
    """With what is in it; a library that we have not got either is not looked for anywhere else."""
    before = list(sys.path)
    import_fallback.lend({"lent_library": str(beside), "absent_library": ""})
    assert importlib.import_module("lent_library.part").__name__ == "lent_library.part"
    for name in ("other_library", "absent_library", "lent_library.absent"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert sys.path == before


def test_what_the_application_has_itself_comes_first(beside, tmp_path_factory, monkeypatch):
    """Its own version may be another."""
    own = tmp_path_factory.mktemp("own")
    (own / "lent_library.py").write_text("where = 'own'\n")
    monkeypatch.syspath_prepend(str(own))
    import_fallback.lend({"lent_library": str(beside)})
    assert importlib.import_module("lent_library").where == "own"
