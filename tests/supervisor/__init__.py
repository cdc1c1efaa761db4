"""Tests of preforkd.supervisor."""
