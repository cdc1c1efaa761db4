"""Applications: how each kind is loaded and called."""
