"""The mount prefix: what may be written, and what is below it."""

import pytest

from preforkd.config.prefix import below, parse_prefix, with_prefix


@pytest.mark.parametrize("text", ["", "/shop", "/a/b.c", "/~u/a:b@c", "/...", "/.well-known"])
def test_prefixes(text):
    """Segments of a path; empty for the root."""
    assert parse_prefix(text) == text


@pytest.mark.parametrize(
    "text",
    ["/", "shop", "/shop/", "//shop", "/a//b", "/a%20b", "/a?b", "/a#b", "/a b", "/.", "/a/../b", "/..", "/\xe4",
     "/a\n"],
)  # fmt: skip
def test_what_is_no_prefix(text):
    """Anything that a path could be written with in a second way, or that is not a path."""
    with pytest.raises(ValueError, match="is not a prefix"):
        parse_prefix(text)


@pytest.mark.parametrize(
    ("path", "rest", "whole"),
    [
        ("/shop/a", "/a", "/shop/a"),
        ("/shop", "", "/shop"),
        ("/shop/", "/", "/shop/"),
        ("/a", "/a", "/shop/a"),
        ("/shopping", "/shopping", "/shop/shopping"),
        ("/shop/shop", "/shop", "/shop/shop"),
        ("/", "/", "/shop/"),
        ("*", "*", "*"),
    ],
)
def test_the_path_below_the_prefix(path, rest, whole):
    """At the boundary of a segment; a path without the prefix was stripped by the proxy."""
    assert below(path, "/shop") == rest
    assert with_prefix(path, "/shop") == whole
    assert below(path, "") == with_prefix(path, "") == path
