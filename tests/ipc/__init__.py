"""Tests of preforkd.ipc."""
