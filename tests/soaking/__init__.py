"""The soak: load of all kinds, and faults at random."""
