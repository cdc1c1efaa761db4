"""The limit of open descriptors: getrlimit(2)."""

import contextlib
import resource


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the soft limit of open descriptors to ``wanted``, or to the hard limit.

    Returns the resulting soft limit; it is never lowered.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and goal > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
