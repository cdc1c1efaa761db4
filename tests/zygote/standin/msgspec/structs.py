"""What the records' own code uses of msgspec.structs."""

force_setattr = object.__setattr__
