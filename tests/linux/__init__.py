"""Tests of preforkd.linux."""
