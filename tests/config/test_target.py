"""Targets: KIND:MODULE:ATTRIBUTE."""

import re

import pytest

from preforkd.config.target import (
    Reference,
    Target,
    is_request,
    parse_check,
    parse_reference,
    parse_target,
    parse_warm_up,
)


def test_targets_are_parsed():
    """Kind, module, dotted attribute, and whether it is a factory."""
    assert parse_target("wsgi:a.b:app") == Target("a.b", "app", kind="wsgi")
    assert parse_target("asgi:a:make.app()") == Target("a", "make.app", True, kind="asgi")
    assert parse_target("stream:módulo:f") == Target("módulo", "f", kind="stream")


@pytest.mark.parametrize(
    ("text", "arguments", "keywords"),
    [
        ("()", (), {}),
        ("(1, 'a:b')", (1, "a:b"), {}),
        ('(root="/srv/packages")', (), {"root": "/srv/packages"}),
        (
            "([1, (2,), {'a': None}], b=-1.5, c=True, d=b'x')",
            ([1, (2,), {"a": None}],),
            {"b": -1.5, "c": True, "d": b"x"},
        ),
        ("('()', x=')')", ("()",), {"x": ")"}),
    ],
)
def test_a_factory_has_literal_arguments(text, arguments, keywords):
    """By position and by name; colons and brackets may stand in them. Messages do not show them."""
    for found in (parse_target(f"wsgi:a:f.g{text}"), parse_reference(f"a:f.g{text}")):
        assert (found.module, found.attribute, found.call) == ("a", "f.g", True)
        assert (found.arguments, found.keywords) == (arguments, keywords)
        assert found.name == ("a:f.g()" if text == "()" else "a:f.g(...)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(x)", "not literals"),
        ("(open('x'))", "not literals"),
        ("(*[1])", "not literals"),
        ("(**{'a': 1})", "without **"),
        ("(1", "not the name of an attribute"),
        ("(1)(2)", "not a list of arguments"),
        ("(1).x()", "not a list of arguments"),
        ("(1 2)", "not a list of arguments"),
        ("(a=1, a=2)", "each argument once"),
        ("(" + "[" * 5000 + "]" * 5000 + ")", "not a list of arguments"),
    ],
)
def test_other_arguments_are_refused(text, words):
    """Nothing is executed to read a configuration."""
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_target(f"wsgi:a:f{text}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "is not KIND:MODULE:ATTRIBUTE, for example wsgi:mysite.wsgi:application"),
        ("a:b", "'a:b' has no kind: write wsgi:a:b or asgi:a:b"),
        ("a:f(x='u:p:q')", "write wsgi:a:f(x='u:p:q') or asgi:a:f(x='u:p:q')"),
        ("a.py", "'a.py' has no kind: write wsgi:a:app or asgi:a:app"),
        ("src/a.py:b", "write wsgi:a:b or asgi:a:b, with app.directory: src"),
        ("wsgi:a", "is not KIND:MODULE:ATTRIBUTE, for example wsgi:a:application"),
        ("wsgi:", "for example wsgi:mysite.wsgi:application"),
        ("wsgi:a.py:b", "'a.py' is the name of a file: write a"),
        ("asgi:/srv/a.py:b", "write a, and set app.directory to /srv"),
        ("wsgi:a:b:c", "not the name of an attribute"),
        ("wsgy:a:b", "did you mean wsgi"),
        ("x:a:b", "stream, wsgi, asgi"),
        ("wsgi:a-b:c", "not the name of a module"),
        ("wsgi:a:f-g()", "not the name of an attribute"),
        ("wsgi::f", "not the name of a module"),
    ],
)
def test_invalid_targets(text, words):
    """The error names the fault and shows a valid target."""
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_target(text)


def test_references_are_parsed():
    """A module alone, an attribute of it, and a factory."""
    assert parse_reference("a.b") == Reference("a.b", "")
    assert parse_reference("a.b:c.d") == Reference("a.b", "c.d")
    assert parse_reference("a:Hooks()") == Reference("a", "Hooks", True)


@pytest.mark.parametrize("text", ["a-b", "a:", ":f", "a:b:c", "wsgi:a:b"])
def test_invalid_references(text):
    """The error names the part that is wrong."""
    with pytest.raises(ValueError, match="is not the name of"):
        parse_reference(text)


@pytest.mark.parametrize(
    "text", ["/", "/a%20b?c=d", "http://a.example:8000/x", "https://a", "a.b:c"]
)
def test_valid_entries_of_warm_up(text):
    """Paths, URLs and functions."""
    parse_warm_up(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.b", "neither MODULE:FUNCTION nor a path"),
        ("admin/", "not the name of a module"),
        ("/a b", "as %XX"),
        ("/ä", "as %XX"),
        ("http:///x", "has no host"),
        ("http://a:x/", "[Pp]ort"),
        ("", "not the name of a module"),
    ],
)
def test_invalid_entries_of_warm_up(text, words):
    """The error names the fault."""
    with pytest.raises(ValueError, match=words):
        parse_warm_up(text)


@pytest.mark.parametrize("text", ["", "/health", "/a?b=c", "http://a.example:8000/x", "http://a"])
def test_valid_trial_requests(text):
    """A path or a URL without TLS; an empty text is no trial request."""
    parse_check(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://a/", "without TLS"),
        ("health", "is not a path"),
        ("a:check", "is not a path"),
        ("/a b", "as %XX"),
        ("http://", "has no host"),
        ("http://a:0/", "has no host"),
        ("http://a:99999/", "[Pp]ort"),
    ],
)
def test_invalid_trial_requests(text, words):
    """The error names what is wrong."""
    with pytest.raises(ValueError, match=words):
        parse_check(text)


@pytest.mark.parametrize(
    ("entry", "request_"),
    [("/", True), ("http://a", True), ("https://a", True), ("a:b", False), ("ftp://a", False)],
)
def test_requests_and_functions(entry, request_):
    """A path or a URL is a request, MODULE:FUNCTION is not."""
    assert is_request(entry) is request_
