"""Loading applications, and saying why they do not load."""

import os
import sys

import pytest

from preforkd.apps import loader
from preforkd.config.target import parse_target
from preforkd.errors import ApplicationError, ConfigurationError, SystemFailure


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder on the search path, and a process that is as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def load(text):
    """Load a target by its text."""
    return loader.load(parse_target(text))


def test_attributes_and_factories(home):
    """A plain attribute, a dotted one, and what a factory returns."""
    (home / "site_a.py").write_text(
        "class Box:\n    inner = staticmethod(lambda e, s: 1)\n"
        "def app(e, s): return 2\n"
        "def make(value=3, *, name=''): return lambda e, s: value or name\n"
    )
    assert load("wsgi:site_a:app")(0, 0) == 2
    assert load("wsgi:site_a:Box.inner")(0, 0) == 1
    assert load("wsgi:site_a:make()")(0, 0) == 3
    assert load("wsgi:site_a:make(0, name='/srv/packages:1')")(0, 0) == "/srv/packages:1"


def test_what_is_named_wrongly_is_the_administrators(home):
    """A module or an attribute that does not exist, or that cannot be called."""
    (home / "site_b.py").write_text("application = None\ndef create(): pass\n")
    with pytest.raises(ConfigurationError, match="no module named 'site_nowhere'") as caught:
        load("wsgi:site_nowhere:app")
    assert "app.directory" in caught.value.hint
    assert str(home) in caught.value.detail
    with pytest.raises(ConfigurationError, match="no attribute 'aplication'") as caught:
        load("wsgi:site_b:aplication")
    assert caught.value.hint == "did you mean application?"
    with pytest.raises(ConfigurationError, match="not callable, it is of type NoneType"):
        load("wsgi:site_b:application")


def test_an_object_of_another_kind_is_refused_with_its_file_and_the_right_target(home):
    """What the judge says, in the name of app.target."""
    (home / "site_e.py").write_text("async def app(scope, receive, send): pass\ndef make(): pass\n")
    with pytest.raises(ConfigurationError) as caught:
        load("wsgi:site_e:app")
    assert caught.value.problems[0].setting == "app.target"
    assert f"site_e:app ({home}/site_e.py): it is asynchronous" in caught.value.message
    assert caught.value.hint == "write asgi:site_e:app"
    with pytest.raises(
        ConfigurationError, match=r"site_e:make\(\) .*: the factory has returned None"
    ):
        load("asgi:site_e:make()")


def test_which_file_a_module_was(home):
    """One of the standard library that has the name of the application's, a package, a built-in one."""
    (home / "site.py").write_text("app = print\n")
    (home / "folder").mkdir()
    with pytest.raises(ConfigurationError) as caught:
        load("wsgi:site:app")
    assert f"site ({sys.modules['site'].__file__}) has no attribute 'app'" in caught.value.message
    assert caught.value.hint.startswith(f"{home}/site.py is shadowed by a module of the same name")
    with pytest.raises(ConfigurationError, match=r"'site.app' \(site is /.*/site.py\)"):
        load("wsgi:site.app:app")
    with pytest.raises(ConfigurationError, match=r"sys \(built into the interpreter\) has no"):
        load("wsgi:sys:app")
    with pytest.raises(ConfigurationError, match=rf"without __init__.py in {home}/folder\) has no"):
        load("wsgi:folder:app")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_library", "No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_what_fails_by_itself_is_the_applications(home, text, words):
    """Its own traceback, beginning with its own frame, and the search path."""
    (home / "site_c.py").write_text(f"\n{text}\n")
    with pytest.raises(ApplicationError) as caught:
        load("wsgi:site_c:app")
    assert words in caught.value.message
    assert "site_c.py" in caught.value.detail
    assert "loader.py" not in caught.value.detail
    assert "module search path" in caught.value.detail
    if "library" in words:
        assert "install no_such_library for" in caught.value.hint


def test_a_factory_that_fails(home):
    """The traceback leads into the factory."""
    (home / "site_d.py").write_text("def make():\n    raise KeyError('colour')\n")
    with pytest.raises(ApplicationError, match=r"site_d:make.. failed: KeyError: 'colour'"):
        load("wsgi:site_d:make()")
    with pytest.raises(ApplicationError, match=r"site_d:make\(\.\.\.\) failed: TypeError"):
        load("wsgi:site_d:make('secret')")


def test_a_process_becomes_the_applications_home(home):
    """Directory and search path; a directory that is not there is said."""
    (home / "inner").mkdir()
    loader.prepare(str(home / "inner"))
    assert os.getcwd() == sys.path[0] == str(home / "inner")
    with pytest.raises(ConfigurationError, match=r"app\.directory: .*No such file"):
        loader.prepare(str(home / "nowhere"))


def test_what_the_system_has_not_is_not_the_applications(home):
    """Descriptors that are used up while it is imported, however its code tells it."""
    text = "import errno\ntry:\n    raise OSError(errno.EMFILE, 'full')\nexcept OSError:\n    raise KeyError"
    (home / "site_e.py").write_text(text)
    with pytest.raises(SystemFailure, match="KeyError") as caught:
        load("wsgi:site_e:app")
    assert "LimitNOFILE=" in caught.value.hint
    assert "site_e.py" in caught.value.detail


def test_a_current_directory_that_was_deleted(home, monkeypatch):
    """Without app.directory there is nowhere to load from: said, instead of a traceback."""
    (home / "gone").mkdir()
    monkeypatch.chdir(home / "gone")
    (home / "gone").rmdir()
    with pytest.raises(
        ConfigurationError, match="in which preforkd was started does not exist any more"
    ) as caught:
        loader.prepare("")
    assert caught.value.problems[0].setting == "app.directory"
    with pytest.raises(ConfigurationError, match="no module named 'site_nowhere'"):
        load("wsgi:site_nowhere:app")


def test_the_directory_is_told_without_links(home):
    """What was loaded is that one, wherever the link leads tomorrow."""
    (home / "inner").mkdir()
    (home / "link").symlink_to(home / "inner")
    assert loader.prepare(str(home / "link")) == str(home / "inner")
