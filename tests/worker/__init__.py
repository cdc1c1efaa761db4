"""Tests of preforkd.worker."""
