"""Expressions of a gunicorn.conf.py, which are not executed."""

import ast

import pytest

from preforkd.cli.convert.literal import Evaluator, Unknown

NAMES = {"host": "::1", "cores": 4, "__file__": "/srv/site/gunicorn.conf.py"}


def evaluated(text):
    """Return the value, and the variables that were read."""
    evaluator = Evaluator(NAMES)
    return evaluator.value(ast.parse(text, mode="eval").body), evaluator.variables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 8 // 3 % 4", 5),
        ("-cores / 2", -2.0),
        ("not cores", False),
        ("f'[{host}]:{8000}'", "[::1]:8000"),
        ("'{}:{}'.format(host, 1)", "::1:1"),
        ("'%s:%d' % (host, 80)", None),
        ("'A=%s' % host", "A=::1"),
        ("' Info'.strip().lower()", "info"),
        ("['a', ('b',), {'c': 1}]", ["a", ["b"], {"c": 1}]),
        ("max(int('3'), cores, 2)", 4),
        ("1 if cores > 3 else 2", 1),
        ("cores == 4 and host", "::1"),
        ("'' or None or 'x'", "x"),
        ("os.path.join(os.path.dirname(os.path.abspath(__file__)), 'log')", "/srv/site/log"),
        ("'a,b'.split(',')", ["a", "b"]),
    ],
)
def test_literals_are_computed(text, value):
    """Arithmetic, texts, choices, paths; what is missing is unknown."""
    if value is None:
        with pytest.raises(Unknown):
            evaluated(text)
    else:
        assert evaluated(text) == (value, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("os.environ.get('PORT', '80')", "80"),
        ("int(os.getenv('PORT', 80))", 80),
        ("environ.get('PORT')", None),
        ("'0.0.0.0:' + getenv('PORT', '80')", "0.0.0.0:80"),
    ],
)
def test_a_variable_has_its_default(text, value, monkeypatch):
    """Whatever the environment of this process has; the variable is named."""
    monkeypatch.setenv("PORT", "1")
    assert evaluated(text) == (value, ["PORT"])


@pytest.mark.parametrize(
    "text",
    [
        "os.environ['PORT']",
        "unknown",
        "open('x')",
        "multiprocessing.cpu_count() * 2",
        "'x' * 10**9",
        "10 ** 10 ** 10",
        "[1] * 1000000",
        "1 / 0",
        "int('x')",
        "f'{host:>10}'",
        "f'{host!r}'",
        "lambda: 1",
        "cores < 5 < 6",
        "[x for x in (1, 2)]",
        "'{0.__class__}'.format",
        "1 << 5",
        "+cores",
        "host.encode()",
        "dict(a=1)",
        "''.join(['x'] * 3)",
        r"'\ud800'",
    ],
)
def test_all_else_is_unknown(text):
    """Also what fails, and what would take much memory or time."""
    with pytest.raises(Unknown):
        evaluated(text)


def test_a_long_text_is_unknown():
    """More than a configuration has."""
    with pytest.raises(Unknown, match="too long"):
        evaluated(repr("x" * 100_001))
