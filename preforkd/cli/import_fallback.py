"""A finder of last resort for the libraries that preforkd needs in the application's interpreter.

The zygote runs in the application's virtual environment, which need not have them. Adding preforkd's own
site-packages to the search path was rejected: the application would then find every package installed there,
and a dependency that its own environment lacks would go unnoticed on this machine and fail on the next.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _Finder:
    def __init__(self, libraries: dict[str, str]) -> None:
        self._libraries = libraries

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a library is; its submodules are found by its ``__path__``."""
        folder = self._libraries.get(name)
        return PathFinder.find_spec(name, [folder]) if folder else None


def install(libraries: dict[str, str]) -> None:
    """Let libraries be imported from these directories, by name, if they are found nowhere else."""
    sys.meta_path.append(_Finder(libraries))
