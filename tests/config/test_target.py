"""Targets: KIND:MODULE:ATTRIBUTE."""

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
    assert parse_target("wsgi:a.b:app") == Target("wsgi", "a.b", "app", False)
    assert parse_target("asgi:a:make.app()") == Target("asgi", "a", "make.app", True)
    assert parse_target("stream:módulo:f") == Target("stream", "módulo", "f", False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:b", "wsgi:mysite.wsgi:application"),
        ("wsgi:a:b:c", "KIND:MODULE:ATTRIBUTE"),
        ("wsgy:a:b", "did you mean wsgi"),
        ("x:a:b", "stream, wsgi, asgi"),
        ("wsgi:a-b:c", "not the name of a module"),
        ("wsgi:a:f(1)", "not the name of an attribute"),
        ("wsgi::f", "not the name of a module"),
    ],
)
def test_invalid_targets(text, words):
    """The error names the fault and shows a valid target."""
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        parse_target(text)


def test_references_are_parsed():
    """A module alone, an attribute of it, and a factory."""
    assert parse_reference("a.b") == Reference("a.b", "", False)
    assert parse_reference("a.b:c.d") == Reference("a.b", "c.d", False)
    assert parse_reference("a:Hooks()") == Reference("a", "Hooks", True)


@pytest.mark.parametrize("text", ["a-b", "a:", ":f", "a:f(1)", "a:b:c", "wsgi:a:b"])
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
