"""Applications that process tests serve; ``BREAK`` in the environment decides how they misbehave."""

import os
import signal
import sys
import time

_how = os.environ.get("BREAK", "")
if _how == "signals":
    # What careless applications do at import; none of it may matter.
    for _number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(_number, signal.SIG_IGN)
    sys.stdout = None
if _how == "import":
    raise RuntimeError("this application does not want to be imported")
if _how == "load-hangs":
    time.sleep(600)


def application(environ, start_response):
    """Answer with the query; ``/slow`` takes a while, ``/die`` takes the worker along."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(float(environ["QUERY_STRING"].partition("for=")[2] or 1))
    elif environ["PATH_INFO"] == "/die":
        os._exit(3)
    body = f"{environ['QUERY_STRING']} pid={os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class _DiesAtFork:
    """What stops each worker: a grandchild of the process that imported this."""

    def __init__(self, how):
        self._how = how
        self._depth = 0
        os.register_at_fork(after_in_child=self)

    def __call__(self):
        self._depth += 1
        if self._depth < 2:
            return
        if self._how == "worker-hangs":
            time.sleep(600)
        sys.stderr.write("this worker ends at its start\n")
        os._exit(7)


if _how in {"worker-dies", "worker-hangs"}:
    _DiesAtFork(_how)
