"""Tests of preforkd.worker.wsgi."""
