"""Benchmarks; README.md has their results."""
