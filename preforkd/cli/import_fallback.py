"""How an interpreter that has not got them finds the libraries that preforkd needs there, and nothing else.

To add preforkd's own site-packages to the search path would show the application whatever is
installed beside preforkd: what the application's own environment lacks would be found as long as both are
on one machine.
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
        """Return where a library is; what is in one is found by its own path."""
        folder = self._libraries.get(name)
        return PathFinder.find_spec(name, [folder]) if folder else None


def lend(libraries: dict[str, str]) -> None:
    """Let these libraries be imported from these directories if they are found nowhere else."""
    sys.meta_path.append(_Finder(libraries))
