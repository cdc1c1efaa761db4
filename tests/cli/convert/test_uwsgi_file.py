"""uWSGI's INI files and command lines."""

import pytest

from preforkd.cli.convert import uwsgi_file


def read(text):
    """Return the options of a section in their order: name, value, or the text of one that is not known."""
    lines = uwsgi_file.read("[uwsgi]\n" + text, "/srv/site/shop.ini")
    return [(name, f"<{g.computed}>" if g.computed else g.value) for name, g in lines]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a = 1\n# b = 2\n; c = 3\n\nd=4 ; why\ne = 5 # why", [("a", "1"), ("d", "4"), ("e", "5")]),
        ("master\nvacuum =", [("master", "true"), ("vacuum", "true")]),
        ("env = A=b\nenv = C=d=e", [("env", "A=b"), ("env", "C=d=e")]),
        (
            "x = shop\ny = /srv/%(x)\nz = %(y)/a",
            [("x", "shop"), ("y", "/srv/shop"), ("z", "/srv/shop/a")],
        ),
        ("set = x=1\ny = %(x)", [("set", "x=1"), ("y", "1")]),
        ("a = %d|%n|%s|%p", [("a", "/srv/site/|shop|shop.ini|/srv/site/shop.ini")]),
        ("a = $(HOME)/x", [("a", "<$(HOME)/x>")]),
        ("a = @(file)", [("a", "<@(file)>")]),
        ("a = %k", [("a", "<%k>")]),
        ("a = %(unknown)", [("a", "<%(unknown)>")]),
        ("log-format = %(addr) %T", [("log-format", "%(addr) %T")]),
        (
            "if-env = A\na = 1\nendif =\nif-not-env = A\na = 2\nendif =\nb = 3",
            [("a", "2"), ("b", "3")],
        ),
        ("if-exists = /x\na = 1\nendif =\n", [("a", "<1, if-exists = /x>")]),
        ("a = 1\n[other]\nb = 2\n[uwsgi]\nc = 3", [("a", "1"), ("c", "3")]),
    ],
)
def test_lines_of_a_section(text, options):
    """Comments, switches, repeated options, placeholders, conditions."""
    assert read(text) == options


def test_a_condition_names_its_variable():
    """What holds without it, as a default."""
    ((_, given),) = uwsgi_file.read("[uwsgi]\nif-not-env = N\np = 2\nendif =", "f")
    assert given.variables == ("N",)
    assert uwsgi_file.referenced("a = %(b)/%(c.d) %e") == {"b", "c.d"}


def test_options_of_a_command_line():
    """Short and long, with and without a value, and words that belong to none."""
    words = "--http :8000 --master --module=a:b -p 4 -M -s/run/x --unknown --vacuum site.ini -H /v --last"
    lines = uwsgi_file.of_words(words.split())
    assert [(name, given.value) for name, given in lines] == [
        ("http", ":8000"),
        ("master", "true"),
        ("module", "a:b"),
        ("processes", "4"),
        ("master", "true"),
        ("socket", "/run/x"),
        ("unknown", "true"),
        ("vacuum", "true"),
        ("", "site.ini"),
        ("home", "/v"),
        ("last", "true"),
    ]
