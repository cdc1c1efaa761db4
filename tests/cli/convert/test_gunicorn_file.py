"""A gunicorn.conf.py, read without executing it."""

import pytest

from preforkd.cli.convert import gunicorn_file
from preforkd.errors import ConfigurationError


def read(text):
    """Return name → value, or the expression of a value that is not known, in brackets."""
    options = gunicorn_file.read(text, "/srv/gunicorn.conf.py")
    return {name: f"<{g.computed}>" if g.computed else g.value for name, g in options.items()}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a = b = 1", {"a": 1, "b": 1}),
        ("a: int = 1\nb: int", {"a": 1}),
        ("a = 1\na += 2", {"a": 3}),
        ("a = [1]\na += ['x']", {"a": [1, "x"]}),
        ("def post_fork(s, w):\n  s.x()", {"post_fork": "post_fork"}),
        ("def post_fork(s, w):\n  'nothing'\n  pass", {}),
        ("if 1 > 0:\n  a = 1\nelse:\n  b = 1", {"a": 1}),
        ("import os\nif os.environ.get('X'):\n  a = 1\nelse:\n  b = 1", {"b": 1}),
        ("try:\n  a = 1\nexcept E:\n  a = 2", {"a": 1}),
        ("if f():\n  a = 1", {"a": "<if f()>"}),
        (
            "a = 1\nfor a in g():\n  b = 1",
            {"a": "<a loop or a with statement>", "b": "<a loop or a with statement>"},
        ),
        ("a, b = f()", {"a": "<a part of it is assigned>", "b": "<a part of it is assigned>"}),
        ("c = cpu_count()\na = c * 2", {"c": "<cpu_count()>", "a": "<c * 2, c = cpu_count()>"}),
        ("a = 1\na = f()\nb = a", {"a": "<f()>", "b": "<a, a = f()>"}),
        ("from base import *", {"import *": "from base"}),
        ("class C:\n  a = 1\nx.y = 2\nprint(1)", {}),
    ],
)
def test_assignments_and_functions(text, options):
    """The last one counts; what depends on an execution is named by its expression or its statement."""
    assert read(text) == options


def test_a_value_names_the_variables_that_it_comes_from():
    """Also by way of other names; and its line."""
    text = "import os\nport = os.getenv('PORT', '80')\nbind = ':' + port\n"
    given = gunicorn_file.read(text, "f")["bind"]
    assert (given.value, given.variables, given.place.line) == (":80", ("PORT",), 3)


def test_names_that_are_not_used():
    """A helper is used; a misspelled setting is not."""
    text = "_x = 1\ncores = 2\nworkers = cores\npid = 3\n"
    assert gunicorn_file.unused(text, gunicorn_file.read(text, "f")) == {"workers", "pid"}


@pytest.mark.parametrize(("text", "line"), [("a = (\n", 1), ("a = 1\n b = 2", 2), ("\0", 0)])
def test_what_is_not_python(text, line):
    """The error has the file and the line."""
    with pytest.raises(ConfigurationError) as caught:
        gunicorn_file.read(text, "g.py")
    (problem,) = caught.value.problems
    assert (problem.place.source, problem.place.line) == ("g.py", line)
    assert problem.message.startswith("not Python: ")
