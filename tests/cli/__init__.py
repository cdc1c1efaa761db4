"""Tests of preforkd.cli."""
