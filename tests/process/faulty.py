"""An application that does to its process what the query says; at import, what ``BREAK`` says."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def _overflow():
    sys.setrecursionlimit(1 << 30)

    def deeper(_):
        return list(map(deeper, [0]))

    deeper(0)


def _recurse():
    _recurse()


def _raise():
    raise RuntimeError("the application cannot go on")


def _orphan():
    # A daemon in the old manner: its parent leaves, and it lives on for a moment.
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            time.sleep(0.2)
        os._exit(0)
    os.waitpid(middle, 0)


def _fork_and_return():
    # The child of a careless application comes back from its call as its parent does.
    if os.fork() == 0:
        time.sleep(0.2)


def _fork_and_stay():
    if (child := os.fork()) == 0:
        time.sleep(20)
        os._exit(0)
    Path(os.environ["SCRATCH"], "child").write_text(str(child))


def _program():
    subprocess.run(["true"], check=True)


def _thread():
    thread = threading.Thread(target=_program)
    thread.start()
    thread.join()


def _close_all():
    os.closerange(3, 4096)


def _ignore_signals():
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)


HOW = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "segv": lambda: ctypes.string_at(8),
    "abort": os.abort,
    "_exit": lambda: os._exit(5),
    "_exit0": lambda: os._exit(0),
    "exit": lambda: sys.exit(0),
    "raise": _raise,
    "recurse": _recurse,
    "overflow": _overflow,
    "orphan": _orphan,
    "fork-and-return": _fork_and_return,
    "fork-and-stay": _fork_and_stay,
    "program": _program,
    "thread": _thread,
    "close-all": _close_all,
    "ignore-signals": _ignore_signals,
    "umask": lambda: os.umask(0o777),
    "chdir": lambda: os.chdir("/"),
    "nothing": lambda: None,
}


def application(environ, start_response):
    """``?id=N`` is answered at once; ``/fault?HOW`` does that first; ``/slow?for=S`` takes its time."""
    query = environ["QUERY_STRING"]
    if environ["PATH_INFO"] == "/fault":
        HOW[query]()
    elif environ["PATH_INFO"] == "/slow":
        time.sleep(float(query.partition("for=")[2] or 1))
    length = 0
    while data := environ["wsgi.input"].read(65536):
        length += len(data)
    body = f"{query} pid={os.getpid()} length={length}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class _DiesInFork:
    """Ends a process at one point of a worker's birth, once for each time that a file is put there."""

    def __init__(self, where, flag):
        self._where = where
        self._flag = flag
        self._depth = 0
        os.register_at_fork(
            before=self._before, after_in_parent=self._after, after_in_child=self._child
        )

    def _before(self):
        self._die("before" if self._depth == 0 else "")

    def _after(self):
        self._die("parent" if self._depth == 0 else "")

    def _child(self):
        self._depth += 1
        self._die({1: "middle", 2: "newborn"}.get(self._depth, ""))

    def _die(self, where):
        if where == self._where and self._flag.exists():
            self._flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


_break = os.environ.get("BREAK", "")
if _break.startswith("die-"):
    _DiesInFork(_break.removeprefix("die-"), Path(os.environ["SCRATCH"], "die"))
elif _break == "kill-at-import":
    os.kill(os.getpid(), signal.SIGKILL)
elif _break == "kill-when-told":
    if Path(os.environ["SCRATCH"], "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
elif _break:
    HOW[_break]()
