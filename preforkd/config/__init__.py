"""Settings: declared once, read from YAML with the place of every value, and what derives from them."""
