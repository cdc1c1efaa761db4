"""msgspec, loaded without what it prefers where that is installed and does as well without.

It takes three names from typing_extensions that typing has as well. With inspect, ast and dis, which are
behind it, that is 1.3 MB of a master that has 11 of its own.
"""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Let what is imported in here not find this module, unless it was loaded before."""
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]


with without("typing_extensions"):
    import msgspec  # noqa: F401
