"""Tests of preforkd.apps."""
