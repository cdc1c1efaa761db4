"""The tests of preforkd, by what they start: `stages.py` runs them one stage after the other."""
