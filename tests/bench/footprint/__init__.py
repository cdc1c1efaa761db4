"""What a pool of workers costs in memory, for several servers: the parts of memory.py."""
