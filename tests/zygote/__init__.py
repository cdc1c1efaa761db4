"""Tests of preforkd.zygote."""
