"""Records for interpreters in which msgspec is not installed: what a zygote's heap is made of needs no more."""

from dataclasses import dataclass


class Struct:
    """A dataclass, in the words of msgspec."""

    def __init_subclass__(cls, *, frozen: bool = False, kw_only: bool = False) -> None:
        dataclass(frozen=frozen, kw_only=kw_only)(cls)
