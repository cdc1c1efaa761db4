"""Tests of preforkd.http."""
