"""Tests of preforkd.config."""
