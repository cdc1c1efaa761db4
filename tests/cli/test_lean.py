"""Modules that are not to be found for a moment."""

import importlib
import sys

import pytest

from preforkd.cli.lean import without


def test_a_module_is_not_found_and_then_is(monkeypatch):
    """Whatever happens meanwhile."""
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(ImportError), without("this"):
        importlib.import_module("this")
    assert "this" not in sys.modules


def test_what_was_loaded_before_stays():
    """Others use it already."""
    with without("sys"):
        assert importlib.import_module("sys") is sys
    assert sys.modules["sys"] is sys
