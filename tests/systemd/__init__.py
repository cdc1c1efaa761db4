"""Tests under a real systemd, in a machine of their own."""
