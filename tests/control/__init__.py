"""Tests of preforkd.control."""
