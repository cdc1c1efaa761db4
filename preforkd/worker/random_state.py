"""Random numbers of a worker's own: what was seeded once must not repeat itself in each fork.

CPython renews the generator of its module `random` at a fork by itself; numpy does not renew its own.
Generators that the application has made are the application's (hook ``after_fork``).
"""

import contextlib
import sys


def renew() -> None:
    """Seed numpy's global generator anew, if the application has imported it."""
    module = sys.modules.get("numpy.random")
    if module is not None:
        with contextlib.suppress(Exception):
            module.seed()
