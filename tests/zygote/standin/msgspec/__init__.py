"""Records for interpreters in which msgspec is not installed: what a zygote's heap is made of needs no more."""

from dataclasses import dataclass, field


class Struct:
    """A dataclass, in the words of msgspec."""

    def __init_subclass__(cls, *, frozen: bool = False, kw_only: bool = False) -> None:
        for name, value in list(vars(cls).items()):
            if isinstance(value, (dict, list, set)) and name in cls.__annotations__:
                setattr(cls, name, field(default_factory=value.copy))
        dataclass(frozen=frozen, kw_only=kw_only)(cls)
