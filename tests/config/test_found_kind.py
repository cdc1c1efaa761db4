"""The kind of an application, as its file shows it."""

import pytest

from preforkd.config import found_kind, sources
from preforkd.errors import ConfigurationError


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("async def app(s, r, t): ...", "write asgi:hello:app: app is a coroutine function"),
        (
            "def app(environ, start): ...",
            "write wsgi:hello:app: app is a function of two arguments",
        ),
        (
            "import flask\napp = flask.Flask(__name__)",
            "write wsgi:hello:app: app is made by Flask()",
        ),
        ("app = FastAPI()", "write asgi:hello:app: app is made by FastAPI()"),
        (
            "app = get_asgi_application()",
            "write asgi:hello:app: app is made by get_asgi_application()",
        ),
        ("app = mine()", ""),
        ("def app(connection): ...", ""),
        ("other = Flask()", ""),
        ("app = (", ""),
    ],
)
def test_the_kind_is_named_if_the_file_shows_it(code, hint, tmp_path):
    """A function, or a framework's object; nothing is executed."""
    (tmp_path / "hello.py").write_text(code)
    assert found_kind.hint("hello:app", str(tmp_path)) == hint


def test_packages_and_files_that_are_not_there(tmp_path):
    """A package is its __init__.py; no file is no hint."""
    (tmp_path / "site" / "web").mkdir(parents=True)
    (tmp_path / "site" / "web" / "__init__.py").write_text("app = Flask()")
    assert found_kind.hint("site.web:app", str(tmp_path)).startswith("write wsgi:site.web:app")
    for text in ("nothing:app", "site:app", "a b:app"):
        assert found_kind.hint(text, str(tmp_path)) == ""


@pytest.mark.parametrize("by", ["option", "file"])
def test_a_target_without_a_kind_is_refused_with_the_hint(by, tmp_path):
    """From the command line, and from a file with its directory."""
    (tmp_path / "hello.py").write_text("async def app(scope, receive, send): ...")
    path = tmp_path / "preforkd.yaml"
    path.write_text(
        f"app: {{directory: {tmp_path}, target: 'hello:app'}}\n" if by == "file" else ""
    )
    options = {} if by == "file" else {"app.target": "hello:app", "app.directory": str(tmp_path)}
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(path), options)
    (problem,) = caught.value.problems
    assert problem.message == "'hello:app' has no kind: write wsgi:hello:app or asgi:hello:app"
    assert problem.hint == "write asgi:hello:app: app is a coroutine function"
