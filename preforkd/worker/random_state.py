"""Random state after a fork: workers must not produce the same numbers.

CPython seeds the generator of its module `random` again in a forked child; numpy does not. Generators that
the application has created are seeded by the application (hook ``after_fork``).
"""

import contextlib
import sys


def renew() -> None:
    """Seed numpy's global generator, if the application has imported it."""
    module = sys.modules.get("numpy.random")
    if module is not None:
        with contextlib.suppress(Exception):
            module.seed()
