"""Modules that are hidden during an import."""

import importlib
import sys

import pytest

from preforkd.cli.lean import without


def test_a_module_is_hidden_only_meanwhile(monkeypatch):
    """Also if the import fails."""
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(ImportError), without("this"):
        importlib.import_module("this")
    assert "this" not in sys.modules


def test_a_loaded_module_is_not_hidden():
    """Other modules already use it."""
    with without("sys"):
        assert importlib.import_module("sys") is sys
    assert sys.modules["sys"] is sys
