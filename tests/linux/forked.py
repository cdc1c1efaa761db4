"""A child for a test that must not fork itself."""

import os


def in_child(body):
    """Return what this returns in a forked child: a number below 99."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = int(body())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
