"""The tests once more, with the newer CPython of Debian testing."""
