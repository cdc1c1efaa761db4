"""Lazy imports (CPython 3.15, PEP 810) are resolved before the fork.

A module that is imported at its first use would be imported by each worker, for itself and during a request.
"""

import logging
import sys
import types
from collections.abc import Iterator

logger = logging.getLogger("preforkd.app")


def resolve() -> int:
    """Import what loaded modules import lazily, and what these import lazily; return the number of names.

    An import that fails stays lazy and fails again where the application uses the name.
    """
    kind = getattr(types, "LazyImportType", None)
    if kind is None:
        return 0
    tried: set[tuple[str, str]] = set()
    failed = 0
    while names := [each for each in _lazy_names(kind) if each not in tried]:
        for module, name in names:
            tried.add((module, name))
            try:
                getattr(sys.modules[module], name)
            except (Exception, SystemExit) as error:
                failed += 1
                logger.info("the lazy import of %s in module %s fails: %s", name, module, error)
    return len(tried) - failed


def _lazy_names(kind: type) -> Iterator[tuple[str, str]]:
    for module_name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType):
            for name, value in list(vars(module).items()):
                if type(value) is kind:
                    yield module_name, name
