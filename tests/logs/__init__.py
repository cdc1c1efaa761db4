"""Tests of preforkd.logs."""
