"""Small leaves, one family of system calls a file, that decide nothing and re-check what they are told."""
