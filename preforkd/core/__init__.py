"""The pure core: facts in, wishes out.  Reads no clock, no OS, no random source."""
