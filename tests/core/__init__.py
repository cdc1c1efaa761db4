"""Tests of preforkd.core."""
