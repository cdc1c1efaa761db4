"""Tests of preforkd.worker.asgi."""
