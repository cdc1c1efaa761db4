"""Libraries that an application's interpreter takes from preforkd's installation."""

import importlib
import sys

import pytest

from preforkd.cli import import_fallback


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """A directory with two packages; changes to finders and modules are undone."""
    for name in ("needed_library", "other_library"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("where = 'fallback'\n")
        (tmp_path / name / "part.py").write_text("")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path
    for name in [
        name for name in sys.modules if name.startswith(("needed_library", "other_library"))
    ]:
        del sys.modules[name]


def test_a_listed_library_is_found_and_nothing_else_in_its_directory(libraries):
    """With its submodules; a listed library without a directory is not searched for."""
    before = list(sys.path)
    import_fallback.install({"needed_library": str(libraries), "absent_library": ""})
    assert importlib.import_module("needed_library.part").__name__ == "needed_library.part"
    for name in ("other_library", "absent_library", "needed_library.absent"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert sys.path == before


def test_the_applications_own_library_comes_first(libraries, tmp_path_factory, monkeypatch):
    """Its version may differ from preforkd's."""
    own = tmp_path_factory.mktemp("own")
    (own / "needed_library.py").write_text("where = 'own'\n")
    monkeypatch.syspath_prepend(str(own))
    import_fallback.install({"needed_library": str(libraries)})
    assert importlib.import_module("needed_library").where == "own"
