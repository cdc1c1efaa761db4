"""Tests that start preforkd as a program."""
