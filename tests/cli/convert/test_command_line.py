"""Command lines, and what stands before them."""

import pytest

from preforkd.cli.convert import command_line
from preforkd.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "program", "environment", "wrappers", "before"),
    [
        ("gunicorn x", "gunicorn", [], [], []),
        ("exec /v/bin/gunicorn3 x", "/v/bin/gunicorn3", [], [], []),
        ("env A=b /v/bin/python -m gunicorn x", "/v/bin/python", ["A=b"], [], []),
        ("poetry run gunicorn x", "gunicorn", [], ["poetry"], []),
        ("web: gunicorn x", "gunicorn", [], [], []),
        ("export A=1; ./x y && B=2 gunicorn x", "gunicorn", ["A=1", "B=2"], [], ["", "./x y"]),
    ],
)
def test_the_parts_of_a_command(text, program, environment, wrappers, before):
    """Variables, wrappers, commands before it, an interpreter."""
    found = command_line.split(text.split())
    assert (found.server, found.program, found.arguments) == ("gunicorn", program, ["x"])
    assert (found.environment, found.wrappers, found.before) == (environment, wrappers, before)


@pytest.mark.parametrize(
    ("text", "value", "computed", "variables"),
    [
        ("x", "x", "", ()),
        ("${A:-1}:${B-2}", "1:2", "", ("A", "B")),
        (":$PORT", None, ":$PORT", ()),
        ("$(nproc)", None, "$(nproc)", ()),
        ("`nproc`", None, "`nproc`", ()),
        ("50$", "50$", "", ()),
        (True, True, "", ()),
    ],
)
def test_variables_of_the_shell(text, value, computed, variables):
    """A default is taken; without one the value is not known."""
    given = command_line.given(text, "bind")
    assert (given.value, given.computed, given.variables) == (value, computed, variables)


def test_options_of_gunicorn():
    """Short and long, joined and repeated; a switch; arguments that are none are returned."""
    words = "-b :1 --bind=:2 -w4 -D --env A=1 -e B=$C --limit-request-field_size 9 app:app --what"
    options, rest = command_line.gunicorn_options(words.split())
    assert rest == ["--what"]
    values = {name: given.value for name, given in options.items()}
    assert values == {
        "bind": [":1", ":2"],
        "workers": "4",
        "daemon": True,
        "raw_env": None,
        "limit_request_field_size": "9",
        "wsgi_app": "app:app",
    }
    assert options["raw_env"].computed == "B=$C"
    with pytest.raises(ConfigurationError, match="expected one argument"):
        command_line.gunicorn_options(["-w"])
